"""A store of objects that fails as networks do: `shaky://NAME`, in this process's memory."""

from collections import Counter
from itertools import count

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class Shaky(MemoryFileSystem):
    """Of its answers, every so many-th is an error, too short, or has a flipped bit, in turn. 0: none.

    It counts the bytes that it sends, by the end of the object's name, and the wrong answers by their kind.
    """

    protocol = "shaky"
    store, pseudo_dirs = {}, [""]
    kinds, every, sent, numbers = ("error", "short", "flipped"), 0, Counter(), count(1)

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("shaky://", "memory://"))

    def cat_file(self, path, start=None, end=None, **kwargs):
        data = bytearray(super().cat_file(path, start, end))
        self.sent[path.rpartition(".")[2]] += len(data)
        number = next(self.numbers)
        if self.every and number % self.every == 0:
            kind = self.kinds[number // self.every % len(self.kinds)]
            self.sent[kind] += 1
            if kind == "error":
                raise ConnectionResetError("the store hung up")
            if kind == "short":
                return bytes(data[:-1])
            data[len(data) // 2] ^= 4
        return bytes(data)


fsspec.register_implementation("shaky", Shaky, clobber=True)
