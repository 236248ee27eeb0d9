"""Files that are complete or absent: temporary name, fsync, rename, fsync of the folder."""

import os
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile

from cache.errors import DptrError, WrongUse

LONGEST = 200  # bytes of a name


@contextmanager
def whole_file(path: Path) -> Iterator[Callable[[bytes | memoryview], None]]:
    """Yields a function that writes the next bytes of `path`, so that after a crash at any moment the file is the old
    one or the complete new one.

    Raises DptrError if the disk is full or the system refuses; the folder is then as it was.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb", buffering=0) as file:
            yield partial(write_all, file.fileno())
            os.fsync(file.fileno())
        os.rename(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path` as `whole_file` does."""
    with whole_file(path) as write:
        write(data)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write every byte: one write(2) may write only a part, and at most 2 GiB."""
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(descriptor, view[: 1 << 30]) :]


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents so that they survive a power loss. DptrError if the system refuses."""
    new = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for made in new:
            sync_folder(made.parent)
    except OSError as error:
        raise cannot_write(folder, error) from error


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A temporary folder to fill. It is renamed to `out` at the end, and removed if anything failed."""
    unfinished = out.with_name(out.name + ".tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        make_folder(unfinished)
        yield unfinished
        os.rename(unfinished, out)
        sync_folder(out.absolute().parent)
    except OSError as error:
        raise cannot_write(out, error) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def link(path: Path, to: Path) -> None:
    """Give a file that never changes another name, and keep the first; or copy it.

    Raises DptrError as `whole_file`. The name survives a power loss once the folder is synced.
    """
    try:
        to.unlink(missing_ok=True)
        os.link(path, to)
    except OSError:  # there are file systems without hard links
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DptrError(f"{path} cannot be read: {error.strerror or error}.") from error
        write_whole(to, data)


def delete(path: Path) -> None:
    """Remove a file if it is there. DptrError if the system refuses."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise DptrError(f"cannot remove {path}: {error.strerror or error}.") from error


def cannot_write(path: Path, error: OSError) -> DptrError:
    """The error to raise after the system refused to write `path`."""
    return DptrError(
        f"cannot write {path}: {error.strerror or error}. Everything committed before is kept: "
        "make room or choose another folder, and run the same command to continue."
    )


def check_folder(option: str, folder: Path) -> None:
    """Raise WrongUse if nothing can be written to `folder`, or where it would be made; `option` names it.

    Asked before anything slow is loaded. Only a trial tells: a file system may be read-only, or refuse even root.
    """
    place = next(p for p in (folder, *folder.absolute().parents) if os.path.lexists(p))
    if not place.is_dir():
        raise WrongUse(f"{option} {folder} cannot be a folder, because {place} is a file: choose another.")
    try:
        with TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise WrongUse(f"{option} {folder} cannot be written ({error.strerror}): choose another.") from error


def plain_name(kind: str, name: str) -> str:
    """`name`, if it is one for a folder: letters and digits of any script, '-', '_' and '.'. WrongUse if it is not.

    So it cannot lead out of the cache, be a hidden folder, or control a terminal.
    """
    shown = repr(name if len(name) <= 40 else f"{name[:40]}...")
    allowed = all(c.isalnum() or unicodedata.category(c)[0] == "M" or c in "-_." for c in name)
    if not name or name.startswith(".") or not allowed:
        raise WrongUse(f"{shown} cannot name a {kind}: use letters, digits, '-', '_' and '.', not a leading '.'.")
    if len(name.encode()) > LONGEST:
        raise WrongUse(f"{shown} cannot name a {kind}: it has {len(name.encode())} bytes, and {LONGEST} are allowed.")
    return name
