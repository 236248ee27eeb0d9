"""One writer per space. The lock is the kernel's, on an open file: it dies with its process and is never stale."""

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cache.errors import DptrError
from cache.files import cannot_write
from cache.remote import on_disk

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # how file systems say so


@contextmanager
def writing(space: Path) -> Iterator[None]:
    """Hold the right to write to `space`.

    DptrError, naming the holder, if another process has it; or if this system or its file system has no locks. WrongUse
    if the cache is elsewhere.
    """
    on_disk(space, "a command that writes")
    if fcntl is None:
        raise DptrError("this system cannot lock files, which dptr needs to write a cache: use Linux or macOS.")
    try:
        descriptor = os.open(space / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise cannot_write(space, error) from error
    try:
        _lock(descriptor, space)
        command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
        _name_holder(descriptor, f"process {os.getpid()} on {socket.gethostname()} ({command[:500]})")
        yield
        _name_holder(descriptor, "")
    except BlockingIOError:
        holder = os.pread(descriptor, 1000, 0).decode(errors="replace").strip() or "another process"
        raise DptrError(f"{space} is being written by {holder}: wait until it ends, then try again.") from None
    finally:
        os.close(descriptor)


def _lock(descriptor: int, space: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in UNSUPPORTED:
            raise DptrError(
                f"the file system of {space} cannot lock files ({error.strerror}), so two writers could damage the "
                "cache: choose a --cache on a local disk."
            ) from error
        raise


def _name_holder(descriptor: int, text: str) -> None:
    with suppress(OSError):  # on a full disk the lock still holds, only without a name
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(errors="backslashreplace"), 0)
