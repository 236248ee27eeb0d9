"""The work that is disturbed: two corpora that overlap, a bank and its table, with a real but tiny CLIP and shards."""

import json
import os
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import open_clip
import torch
import tqdm

import pipeline.embed_images
import pipeline.embed_text
import pipeline.neighbours
import pipeline.picture_shards
import pipeline.stage
import pipeline.unfinished
from cache.errors import DptrError
from cache.garbage import find_garbage, remove
from cache.lock import writing
from cache.memories import MemoryReader
from cache.neighbours import ABSENT
from cache.space import open_space
from cache.verify import verify
from pipeline.elsewhere import Elsewhere
from pipeline.embed_images import embed_images
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from pipeline.neighbours import neighbours
from tests.conftest import TINY
from tests.helpers.pictures import picture

# whatever changes the disk, but for the temporary database, which is not of the cache
SYSTEM_CALLS = ("open", "write", "fsync", "rename", "ftruncate", "unlink", "mkdir", "link")
TABULATED = "two"  # the corpus that gets a table of neighbours
PICTURES = [*((f"{n}.png", picture(n)) for n in range(7)), ("broken.png", b"no picture")]


def prepare(folder: Path) -> Encoder:
    """A tiny encoder, and shards so small that there are many; a process that can be forked."""
    torch.set_num_threads(1)
    tqdm.tqdm.monitor_interval = 0
    tqdm.tqdm.set_lock(threading.RLock())  # its own is shared with forked processes, and one killed would keep it
    (folder / "tiny.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder)
    pipeline.embed_text.SHARD_BYTES = 1 << 14
    pipeline.embed_text.CORPUS_BYTES = 1 << 12
    pipeline.picture_shards.SHARD_BYTES = 1 << 13
    pipeline.unfinished.EVERY = 0.0  # after each batch
    pipeline.neighbours.SHARD, pipeline.neighbours.BATCH = 32, 16
    for stage in (pipeline.stage, pipeline.embed_text, pipeline.embed_images):
        stage.MARGIN = -(1 << 40)  # a disk that is too small is to be met on the way, not foreseen
    return Encoder("tiny", "untrained:1", precision="fp32", device="cpu")


def parts(encoder: Encoder, size: int = 100, elsewhere: Elsewhere | None = None) -> list[Callable[[Path], object]]:
    """The parts of the job, in order; `size` is the number of labels in the first corpus."""

    def text(first: int, last: int, corpus: str) -> Callable[[Path], object]:
        labels = [str(n) for n in range(first, last)]
        return lambda cache: embed_text(cache, encoder, collect(labels), corpus, quiet, elsewhere=elsewhere)

    def images(cache: Path) -> object:
        return embed_images(cache, encoder, iter(PICTURES), len(PICTURES), "noise", quiet, elsewhere=elsewhere)

    def near_and_far(cache: Path) -> object:
        return neighbours(open_space(cache), TABULATED, "noise", 3, quiet, elsewhere)

    return [text(0, size, "one"), text(size // 2, size * 2, TABULATED), images, near_and_far]


def quiet(text: str) -> None:
    """Says nothing."""


def clean(cache: Path) -> object:
    """`dptr cache gc --yes`."""
    if not any(cache.glob("*/space.json")):
        return None
    space = open_space(cache)
    with writing(space.folder):
        return remove(find_garbage(space))


def files(cache: Path) -> dict[str, bytes]:
    """All files that count, by name. The lock does not, as its text names a process, nor do unfinished files."""
    found = (p for p in cache.rglob("*") if p.is_file() and p.name != ".lock" and p.suffix != ".tmp")
    return {p.relative_to(cache).as_posix(): p.read_bytes() for p in found}


def problems(cache: Path, unlisted: bool = False) -> list[str]:
    """What `dptr cache verify` finds; if asked, also shards that no manifest names, which are not damage."""
    if not any(cache.glob("*/space.json")):
        return []
    found = verify(cache, None, False, lambda n: None)
    return [f"{p.path}: {p.what}" for p in found.problems] + found.unlisted * unlisted


def everything(cache: Path) -> dict[str, object]:
    """All that can be read from a cache, in the ways that training reads it. DptrError if one of them fails."""
    space = open_space(cache)
    found: dict[str, object] = {name: array.tobytes() for name, array in space.constants().items()}
    for name in space.corpora():
        corpus = space.existing_corpus(name)
        numbers = space.memories.find(corpus.keys())
        if (numbers < 0).any():
            raise DptrError("labels without memories")
        states, lengths = MemoryReader(space.memories).gather(numbers)
        found[f"{name} labels"] = corpus.labels()
        found[f"{name} counts"] = corpus.counts().tolist()
        found[f"{name} states"] = (states.tobytes(), lengths.tolist())
    for name in space.neighbour_tables():
        for side in ("near", "far"):
            rows = space.neighbours(name).read(side, space.memories, space.bank(name))
            if (rows[space.memory_numbers(space.existing_corpus(TABULATED)), 0] == ABSENT).any():
                raise DptrError("words without neighbours")
            found[f"{name} {side}"] = rows.tobytes()
    for name in space.banks():
        bank = space.bank(name)
        index = bank.index()
        rows = None if index is None else index.reconstruct_n(0, index.ntotal).tobytes()
        found[name] = (bank.ids(), bank.keys().tolist(), bank.features().tobytes(), bank.skipped(), rows)
    return found


def killed(work: Callable[[], object], after: float | None = None, call: int | None = None) -> bool:
    """Do `work` in a process of its own and SIGKILL it after so many seconds, or at its n-th system call.

    Returns whether it was killed: False if it finished first. AssertionError if it failed by itself.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads: there are none
        child = os.fork()
    if not child:
        try:
            with nullcontext() if call is None else deadly(call):
                work()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)  # a child that has ended waits for its parent, so the number is still its own
    _, status = os.waitpid(child, 0)
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "the work failed by itself"
    return os.WIFSIGNALED(status)


@contextmanager
def intercepted(around: Callable):
    """Every system call goes through `around(name, call, arguments)`; `call` is the original."""
    originals = {name: getattr(os, name) for name in SYSTEM_CALLS}

    def wrapped(name):
        return lambda *arguments, **named: around(name, partial(originals[name], **named), arguments)

    try:
        for name in SYSTEM_CALLS:
            setattr(os, name, wrapped(name))
        yield
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


def count_calls(work: Callable[[], object]) -> int:
    """The number of system calls that `work` makes."""
    counted = []

    def count(name, call, arguments):
        counted.append(name)
        return call(*arguments)

    with intercepted(count):
        work()
    return len(counted)


@contextmanager
def deadly(call: int):
    """The process dies at its n-th system call."""
    left = call

    def count_down(name, call, arguments):
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments)

    with intercepted(count_down):
        yield


@contextmanager
def failing(call: int, error: int, short: bool = False):
    """The n-th system call, and it alone, fails with `error`; if `short`, a write takes half before the next fails.

    Yields a list that will hold the name of the call that failed.
    """
    met: list[str] = []
    left = call

    def weak(name, call, arguments):
        nonlocal left
        left -= 1
        if short and left == 0 and name == "write":
            descriptor, data = arguments
            return call(descriptor, data[: len(data) // 2])
        if left == (-1 if short else 0):
            met.append(name)
            raise OSError(error, os.strerror(error))
        return call(*arguments)

    with intercepted(weak):
        yield met


def copy(cache: Path, to: Path) -> Path:
    """A fresh copy of a cache at `to`."""
    shutil.rmtree(to, ignore_errors=True)
    if cache.exists():
        shutil.copytree(cache, to)
    return to


def same_values(one: dict[str, object], other: dict[str, object]) -> bool:
    """Whether two caches hold the same; states may differ by the rounding of another batch."""
    if one.keys() != other.keys():
        return False
    for name, value in one.items():
        if name.endswith(" states"):
            (a, lengths), (b, others) = value, other[name]
            close = np.allclose(np.frombuffer(a, np.float16), np.frombuffer(b, np.float16), atol=8e-3)
            if lengths != others or not close:
                return False
        elif isinstance(value, tuple):
            (a_ids, a_keys, a_features, a_skipped, _), (b_ids, b_keys, b_features, b_skipped, _) = value, other[name]
            close = np.allclose(np.frombuffer(a_features, np.float16), np.frombuffer(b_features, np.float16), atol=8e-3)
            if (a_ids, a_keys, a_skipped) != (b_ids, b_keys, b_skipped) or not close:
                return False
        elif value != other[name]:
            return False
    return True
