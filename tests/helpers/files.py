"""What goes wrong with files: a flipped bit, a disk that takes no more."""

import resource
from contextlib import contextmanager


@contextmanager
def file_size_limit(limit: int):
    """The kernel refuses to let a file of this process grow beyond `limit` bytes: a full disk without a disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def flip(path, place=None):
    """Change a bit of the byte at `place`, or of the one in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if place is None else place] ^= 1
    path.write_bytes(data)
