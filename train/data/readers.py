"""Three ways to read memories for training, with one interface: resident, mapped, streamed.

- `Resident` holds the memories of all words on the device and gathers batches there.
- `Mapped` gathers each batch from the memory-mapped shards, which is fast as long as they are in the page cache.
- `Streamed` reads blocks of shards in random order, ahead of training and in threads, and shuffles words within a
  window of many blocks. Its reads are sequential, and its memory does not grow with the cache.

All yield the same words in each epoch, each once, and check the CRC-32 of each memory that they read from disk. Of
several ranks, each reads its own words only, and `Streamed` seldom a block that another one reads as well.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.errors import WrongUse
from cache.memories import REQUESTS, MemoryReader
from models.device import free_memory, memory, upload
from train.data.plan import Plan
from train.data.words import Words

WINDOW_BYTES = 64 << 20  # of states in a window of `Streamed`; two windows are in memory
THREADS = 8  # threads that read blocks; they mostly wait for the disk
Loaded = tuple[Words, Tensor, NDArray[np.int64]]


class Reader(Protocol):
    """Reads the words of a corpus batch by batch."""

    def epoch(self, plan: Plan, epoch: int, start: int = 0) -> Iterator[Loaded]:
        """Yield the batches of an epoch from number `start` on, a function of the plan and the epoch.

        A batch is the rank's words (B), perhaps none, their states end to end (ΣL, D) float16, and the lengths (B,) of
        those. Raises Damaged, naming the shard, if a memory is not what was written.
        """
        ...

    def place(self, plan: Plan, number: int) -> tuple[int, int]:
        """The epoch that has a run's batch `number`, and the number of that batch in it."""
        ...


class Mapped:
    """Gathers each batch from memory-mapped shards."""

    def __init__(self, reader: MemoryReader, words: Words) -> None:
        self._reader, self._words = reader, words

    def epoch(self, plan: Plan, epoch: int, start: int = 0) -> Iterator[Loaded]:
        """As `Reader.epoch`, with states in main memory."""
        for batch in plan.batches(self._words.lengths, epoch, start):
            words = self._words.take(batch)
            states, lengths = self._reader.gather(words.memories)
            yield words, torch.from_numpy(states), lengths

    def place(self, plan: Plan, number: int) -> tuple[int, int]:
        """As `Reader.place`."""
        return plan.place(number, len(self._words))


class Resident:
    """Holds the memories of all words on the device."""

    def __init__(self, reader: MemoryReader, words: Words, device: torch.device) -> None:
        """Read and check all memories. Raises Damaged as `Reader.epoch` does."""
        numbers = np.unique(words.memories)
        lengths = reader.length[numbers]
        states = torch.empty(int(lengths.sum(dtype=np.int64)), reader.width, dtype=torch.float16, device=device)
        self._words, self._held = words, Held(numbers, lengths, states)
        ends = np.cumsum(lengths, dtype=np.int64)
        step = max(1, WINDOW_BYTES // (reader.nbytes(numbers) // len(numbers)))
        with _pool(reader) as pool:
            for n in range(0, len(numbers), step):
                part = states[ends[n] - lengths[n] : ends[min(n + step, len(ends)) - 1]]
                read = part if device.type == "cpu" else torch.empty(part.shape, dtype=part.dtype)
                for done in _read(pool, reader, numbers[n : n + step], read.numpy()):
                    done.result()
                if read is not part:
                    part.copy_(read)

    def epoch(self, plan: Plan, epoch: int, start: int = 0) -> Iterator[Loaded]:
        """As `Reader.epoch`, with states on the device."""
        for batch in plan.batches(self._words.lengths, epoch, start):
            words = self._words.take(batch)
            yield words, *self._held.gather(words.memories)

    def place(self, plan: Plan, number: int) -> tuple[int, int]:
        """As `Reader.place`."""
        return plan.place(number, len(self._words))


class Streamed:
    """Reads blocks of shards in random order, ahead of the batches made from them."""

    def __init__(self, reader: MemoryReader, words: Words) -> None:
        self._reader, self._words = reader, words
        self._block = np.unique(reader.block(words.memories), return_inverse=True)[1].astype(np.int32)
        self._bytes = reader.nbytes(words.memories) / len(words)  # per word
        self._buffers = [torch.empty(0, reader.width, dtype=torch.float16)] * 2

    def order(self, random: np.random.Generator) -> NDArray[np.int64]:
        """All words, with blocks in random order; within a block, in the order of their memories."""
        place = random.permutation(self._block.max() + 1)
        return np.lexsort((self._words.memories, place[self._block]))

    def epoch(self, plan: Plan, epoch: int, start: int = 0) -> Iterator[Loaded]:
        """As `Reader.epoch`, with states in main memory. What comes before `start` is not read."""
        coming: deque[tuple[list[Words], Held, list[Future[None]]]] = deque()
        pool = _pool(self._reader)
        try:
            windows = plan.windows(self._words.lengths, epoch, start, self._window, self.order)
            for number, batches in enumerate(windows):
                coming.append(self._begin(pool, [self._words.take(b) for b in batches], number % 2))
                if len(coming) == 2:
                    yield from _serve(*coming.popleft())  # its buffer is free afterwards
            while coming:
                yield from _serve(*coming.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def place(self, plan: Plan, number: int) -> tuple[int, int]:
        """As `Reader.place`."""
        return plan.place(number, len(self._words), self._window)

    def _window(self, batch: int) -> int:
        return max(1, int(WINDOW_BYTES / self._bytes) // batch)

    def _begin(
        self, pool: ThreadPoolExecutor, batches: list[Words], slot: int
    ) -> tuple[list[Words], "Held", list[Future[None]]]:
        """Start reading the memories of some batches into one of the buffers."""
        numbers = np.unique(np.concatenate([b.memories for b in batches]))
        lengths = self._reader.length[numbers]
        rows = int(lengths.sum(dtype=np.int64))
        if len(self._buffers[slot]) < rows:
            self._buffers[slot] = torch.empty(rows, self._reader.width, dtype=torch.float16)
        states = self._buffers[slot][:rows]
        return batches, Held(numbers, lengths, states), _read(pool, self._reader, numbers, states.numpy())


class Held:
    """Memories held on a device: their numbers in ascending order (n,), lengths (n,), and states end to end (ΣL, D)."""

    def __init__(self, numbers: NDArray[np.int64], lengths: NDArray[np.int32], states: Tensor) -> None:
        self._numbers, self._lengths, self._states = numbers, lengths, states
        self._starts = np.cumsum(lengths, dtype=np.int64) - lengths

    def gather(self, numbers: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
        """As `MemoryReader.gather`, on the device that holds the states, and without waiting for it."""
        places = np.searchsorted(self._numbers, numbers)
        lengths = self._lengths[places].astype(np.int64)
        before = np.cumsum(lengths) - lengths
        rows = np.arange(lengths.sum()) + np.repeat(self._starts[places] - before, lengths)
        if (
            self._states.device.type == "cpu"
        ):  # numpy's one thread: torch's spin on cores that reading and training need
            return torch.from_numpy(np.take(self._states.numpy(), rows, 0, mode="clip")), lengths
        return self._states.index_select(0, upload(torch.from_numpy(rows), self._states.device)), lengths


def _read(
    pool: ThreadPoolExecutor, reader: MemoryReader, numbers: NDArray[np.int64], out: NDArray[np.float16]
) -> list[Future[None]]:
    """Start reading memories, given in ascending order, end to end into `out` (ΣL, D), a block at a time."""
    if not len(numbers):  # another rank has the words of all batches of this window
        return []
    return [pool.submit(reader.read_block, part, out[rows]) for part, rows in reader.by_block(numbers)]


def _pool(reader: MemoryReader) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(REQUESTS if reader.remote else THREADS)


def _serve(batches: list[Words], held: Held, reading: list[Future[None]]) -> Iterator[Loaded]:
    for part in reading:
        part.result()
    for words in batches:
        yield words, *held.gather(words.memories)


def choose_reader(asked: str, size: int, device: torch.device, remote: bool = False) -> tuple[str, str]:
    """The name of a reader for `size` bytes of states, and the reason for choosing it.

    WrongUse for one that cannot read from a cache elsewhere, if it is `remote`.
    """
    if remote and asked == "mapped":
        raise WrongUse(
            "--reader mapped reads at random, and the cache is elsewhere: choose streamed, or get the cache with "
            "dptr cache pull and name its folder with --cache."
        )
    if asked != "auto":
        return asked, "as --reader says"
    free, whole = free_memory(device), memory()
    if size <= free // 2:
        return "resident", f"{_gb(size)} of states fit into half of the {_gb(free)} free on {device.type}"
    if remote:
        return "streamed", f"{_gb(size)} of states are more than half of the {_gb(free)} free on {device.type}"
    if size <= whole // 2:
        return (
            "mapped",
            f"{_gb(size)} of states fit into half of the machine's {_gb(whole)}, but not of what is free on "
            f"{device.type}",
        )
    return "streamed", f"{_gb(size)} of states are more than half of the machine's {_gb(whole)}"


def open_reader(name: str, reader: MemoryReader, words: Words, device: torch.device) -> Reader:
    """The reader called `name` for these words: resident, mapped or streamed."""
    if name == "resident":
        return Resident(reader, words, device)
    return Mapped(reader, words) if name == "mapped" else Streamed(reader, words)


def _gb(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
