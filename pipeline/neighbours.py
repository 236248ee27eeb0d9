"""Finds the photographs nearest to and farthest from each memory, offline: `dptr neighbours CORPUS BANK`.

They are compared in the space that an encoder's two towers share, by cosine: a memory's end token, as the text tower
projects it, with the photographs' class tokens. Memories are taken in the order of the corpus, a batch at a time, and
committed a shard at a time; the same command continues after the last shard. FAISS searches the bank's index here, and
training only gathers rows.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cache import index as faiss_index
from cache.bank import Bank
from cache.class_tokens import Vectors, unit
from cache.errors import DptrError
from cache.lock import writing
from cache.memories import MemoryReader
from cache.neighbours import MadeFor
from cache.space import Space

K = 32
SHARD, BATCH = 16_384, 1024  # memories in a shard, and searched together


@dataclass(frozen=True)
class NeighbourSummary:
    """What `neighbours` did."""

    space: str
    bank: str
    memories: int  # of the corpus
    new: int  # found now
    k: int
    index: str  # its kind
    recall_near: float  # at 10, against exact search, for a sample of the corpus
    recall_far: float
    seconds: float


def neighbours(
    space: Space, corpus_name: str, bank_name: str, k: int | None, say: Callable[[str], None]
) -> NeighbourSummary:
    """Make sure that every memory of the corpus has a row in the bank's table, `k` wide (as it is, or K, if None).

    A table for other photographs than the bank has now, or of another width, is made anew. Raises WrongUse for a corpus
    or bank that does not exist, DptrError if the bank has no index over all its photographs, if the widths differ, if
    another process is writing the space, or if a write fails; committed shards stay.
    """
    with writing(space.folder):
        bank, corpus = space.existing_bank(bank_name), space.existing_corpus(corpus_name)
        index, table = bank.whole_index(), space.neighbours(bank_name)
        before = table.made_for
        width = min(k or (before.k if before else K), bank.rows)
        made_for = MadeFor(bank.rows, bank.pictures_digest(bank.rows), width)
        if before and before != made_for:
            say(f"made anew: bank '{bank_name}' had a table for {before.pictures:,} photographs, {before.k} a memory")
            table.replace([], [])
        numbers = space.memory_numbers(corpus)
        first = np.sort(np.unique(numbers, return_index=True)[1])  # label of each memory, in the order of the corpus
        numbers, keys = numbers[first], corpus.keys()[first]
        end_rows = EndRows(space)
        if end_rows.width != index.d:
            raise DptrError(
                f"bank '{bank_name}' has {index.d} values per token and end tokens have {end_rows.width}: they cannot "
                "be compared."
            )
        missing = table.find(keys) < 0
        say(
            f"{missing.sum():,} of {len(numbers):,} memories to compare with {bank.rows:,} photographs, {width} of "
            f"them to keep on each side, {2 * 4 * width * int(missing.sum()):,} bytes"
        )
        near, far = _tuned(index, bank, end_rows, numbers) if missing.any() else ((0, 1.0), (0, 1.0))
        began = time.perf_counter()
        with tqdm(total=int(missing.sum()), desc="search", unit="memory", delay=2) as progress:
            new, new_keys = numbers[missing], keys[missing]
            for start in range(0, len(new), SHARD):
                here = slice(start, start + SHARD)
                tables = _search(index, end_rows, new[here], width, (near[0], far[0]), progress.update)
                table.commit(table.shard_of(new_keys[here], *tables, made_for))
    facts = bank.index_facts()
    return NeighbourSummary(
        space=space.name,
        bank=bank_name,
        memories=len(numbers),
        new=int(missing.sum()),
        k=width,
        index=facts.kind if facts else "",
        recall_near=near[1],
        recall_far=far[1],
        seconds=round(time.perf_counter() - began, 3),
    )


class EndRows:
    """The end tokens of memories, projected to where the image tower's tokens are, as unit vectors."""

    def __init__(self, space: Space) -> None:
        self._reader = MemoryReader(space.memories)
        self._layout = space.fingerprint.layout
        self._projection = space.constants()["text_projection"]  # (D, E)
        self.width = int(self._projection.shape[1]) if self._layout == "compact" else self._reader.width

    def __call__(self, numbers: NDArray[np.int64]) -> Vectors:
        """Those of memories (n,), (n, E). Damaged if a memory does not match its check."""
        states, lengths = self._reader.gather(numbers)
        ends = np.cumsum(lengths)
        if self._layout == "full":
            return unit(states[ends - lengths])
        rows = states[ends - 1].astype(np.float32)
        return unit(rows @ self._projection if self._layout == "compact" else rows)


def _tuned(
    index: Any, bank: Bank, end_rows: EndRows, numbers: NDArray[np.int64]
) -> tuple[tuple[int, float], tuple[int, float]]:
    """(how far to look, recall) for the near and for the far side, found with a sample of the memories (n,)."""
    some = np.unique(np.linspace(0, len(numbers) - 1, min(len(numbers), faiss_index.SAMPLE)).astype(np.int64))
    queries, tokens = end_rows(numbers[some]), bank.class_tokens()
    found = []
    for side in (queries, -queries):
        recall = faiss_index.tune(index, tokens, side)
        found.append((faiss_index.reach(index), recall))
    return found[0], found[1]


def _search(
    index: Any,
    end_rows: EndRows,
    numbers: NDArray[np.int64],
    k: int,
    reaches: tuple[int, int],
    progress: Callable[[int], object],
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The nearest and the farthest photographs of memories (n,): two tables (n, k)."""
    near, far = np.empty((len(numbers), k), np.int32), np.empty((len(numbers), k), np.int32)
    for start in range(0, len(numbers), BATCH):
        here = slice(start, start + BATCH)
        queries = end_rows(numbers[here])
        for out, side, reach in ((near, queries, reaches[0]), (far, -queries, reaches[1])):
            faiss_index.set_reach(index, reach)
            out[here] = faiss_index.search(index, side, k)
        progress(len(queries))
    return near, far
