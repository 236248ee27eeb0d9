"""Files that are whole or absent: temporary name, fsync, rename, fsync of the folder."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cache.errors import DptrError, WrongUse


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path` so that after a crash at any moment the file is either the old one or all of the new one.

    Raises DptrError, with the folder as it was, when the disk is full or the system refuses.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb", buffering=0) as file:
            write_all(file.fileno(), data)
            os.fsync(file.fileno())
        os.rename(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write every byte: one write(2) may take only a part, and takes 2 GiB at most."""
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(descriptor, view[: 1 << 30]) :]


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents, so that they survive a loss of power; DptrError when the system refuses."""
    new = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for made in new:
            sync_folder(made.parent)
    except OSError as error:
        raise cannot_write(folder, error) from error


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which takes its name when it is full, and is gone if it could not be filled."""
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


def delete(path: Path) -> None:
    """Remove a file if it is there; DptrError when the system refuses."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise DptrError(f"cannot remove {path}: {error.strerror or error}.") from error


def cannot_write(path: Path, error: OSError) -> DptrError:
    """The error to raise when the system refused to write `path`."""
    return DptrError(
        f"cannot write {path}: {error.strerror or error}. What was committed before is kept; "
        "make room or choose another folder, and run the same command again to continue."
    )


def plain_name(kind: str, name: str) -> str:
    """`name` as it may stand as a folder's name; WrongUse if it would leave its folder or hide in it."""
    if not name or name.startswith(".") or any(c in name for c in "/\\\0") or len(name.encode()) > 200:
        raise WrongUse(f"'{name}' cannot name a {kind}: use letters, digits, '-', '_' and '.', not starting with '.'.")
    return name
