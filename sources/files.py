"""Files as people keep them: behind links, and not always files."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from sources.missing import NoPicture

LARGEST = 256 << 20  # bytes of an encoded picture: a photograph of 200 megapixels has 100 MB
TOO_LARGE = NoPicture(f"it has over {LARGEST >> 20} MB")


def read_picture(path: Path) -> bytes:
    """The bytes of a file, or NoPicture if it is missing, may not be read, is too large, or is a device or a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe that nobody writes to does not block
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                return NoPicture("it is a folder, a device or a pipe")
            if found.st_size > LARGEST:
                return TOO_LARGE
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(LARGEST)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return NoPicture("there is no such file")
    except (OSError, ValueError) as error:  # ValueError for names with a zero byte
        return NoPicture(f"it cannot be read ({getattr(error, 'strerror', None) or error})")


def files_below(folder: Path) -> list[Path]:
    """Every file below a folder, sorted, also below folders that are symbolic links.

    No folder is entered twice, so a link may point at what it lies in. Folders that may not be read are left out.
    """
    found: list[Path] = []
    entered: set[tuple[int, int]] = set()
    folders, links = [folder], list[Path]()
    while folders or links:
        here = folders.pop() if folders else links.pop(0)  # links last: what lies here keeps its own name
        with suppress(OSError):
            status = here.stat()
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(here) as entries:
                for entry in entries:
                    path = here / entry.name
                    if not entry.is_dir():
                        found.append(path)
                    else:
                        (links if entry.is_symlink() else folders).append(path)
    return sorted(found)
