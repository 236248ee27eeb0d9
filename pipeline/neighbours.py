"""Finds the photographs nearest to and farthest from each memory, offline: `dptr neighbours CORPUS BANK`.

They are compared in the space that an encoder's two towers share, by cosine: a memory's end token, as the text tower
projects it, with the photographs' class tokens. Memories are taken in the order of the corpus, a batch at a time, and
committed a shard at a time; the same command continues after the last shard. FAISS searches the bank's index here, and
training only gathers rows.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cache import index as faiss_index
from cache.bank import Bank
from cache.class_tokens import ClassTokens, Vectors, unit
from cache.errors import DptrError
from cache.lock import writing
from cache.memories import MemoryReader
from cache.neighbours import MadeFor
from cache.space import Space
from pipeline.elsewhere import Arrays, Build, Elsewhere

K = 32
SHARD, BATCH = 16_384, 1024  # memories in a shard, and searched together
WALKED = 8  # beyond one of so many cells, products of matrices are faster than walking through lists


@dataclass(frozen=True)
class NeighbourSummary:
    """What `neighbours` did."""

    space: str
    bank: str
    memories: int  # of the corpus
    new: int  # found now
    k: int
    searches: list[str]  # kind of index on the near and the far side; empty if nothing was new
    recall: list[float]  # of each, at 10
    seconds: float


def neighbours(
    space: Space,
    corpus_name: str,
    bank_name: str,
    k: int | None,
    say: Callable[[str], None],
    elsewhere: Elsewhere | None = None,
) -> NeighbourSummary:
    """Make sure that every memory of the corpus has a row in the bank's table, `k` wide (as it is, or K, if None).

    A table for other photographs than the bank has now, or of another width, is made anew. `elsewhere` has the rows
    found by other processes, to the same bytes. Raises WrongUse for a corpus or bank that does not exist, DptrError if
    the bank has no index over all its photographs, if the widths differ, if another process is writing the space, or if
    a write fails; committed shards stay.
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
        began = time.perf_counter()
        sides = _sides(index, bank, end_rows, numbers) if missing.any() else []
        for side, name in zip(sides, ("near", "far"), strict=False):
            looks = f", {side.reach:,} of {index.nlist:,} cells" if side.kind in ("ivf", "pq") else ""
            say(f"{name}: {side.kind} search{looks}, recall@10 {side.recall:.3g} on a sample of the words")
        with tqdm(total=int(missing.sum()), desc="search", unit="memory", delay=2) as progress:
            new, new_keys = numbers[missing], keys[missing]
            parts = (slice(start, start + SHARD) for start in range(0, len(new), SHARD))
            if elsewhere:
                how = [(side.sign, side.kind, side.reach, side.recall) for side in sides]
                work = {
                    "shards": "neighbours",
                    "bank": bank_name,
                    "sides": how,
                    "made_for": asdict(made_for),
                    "memories": space.memories.rows,  # so that a worker which knows fewer looks again
                }
                tasks = ({"keys": new_keys[here], "numbers": new[here]} for here in parts)
                for rows in elsewhere(space, table, work, tasks):
                    progress.update(rows)
            else:
                for here in parts:
                    near, far = search(sides, end_rows, new[here], width, progress.update)
                    table.commit(table.shard_of(new_keys[here], near, far, made_for))
    return NeighbourSummary(
        space=space.name,
        bank=bank_name,
        memories=len(numbers),
        new=int(missing.sum()),
        k=width,
        searches=[side.kind for side in sides],
        recall=[side.recall for side in sides],
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


@dataclass(frozen=True)
class Side:
    """How the near or the far side is searched."""

    sign: int  # 1: near, -1: far, which is near to the opposite
    index: Any
    kind: str
    reach: int
    recall: float  # at 10, against exact search, for a sample of the memories

    def search(self, queries: Vectors, k: int) -> NDArray[np.int64]:
        """The photographs (n, k) of each query."""
        faiss_index.set_reach(self.index, self.reach)
        return faiss_index.search(self.index, self.sign * queries, k)


def _sides(index: Any, bank: Bank, end_rows: EndRows, numbers: NDArray[np.int64]) -> list[Side]:
    """Near and far. Each is searched with the bank's index if that finds enough with little, measured on a sample.

    An encoder's texts lie apart from its photographs, so a text's neighbours may be in many cells, or out of a graph's
    reach. Then all photographs are compared, as products of matrices.
    """
    facts, tokens = bank.index_facts(), bank.class_tokens()
    assert facts
    some = np.unique(np.linspace(0, len(numbers) - 1, min(len(numbers), faiss_index.SAMPLE)).astype(np.int64))
    queries, sides, everything = end_rows(numbers[some]), list[Side](), None
    for sign in (1, -1):
        recall = faiss_index.tune(index, tokens, sign * queries)
        reach = faiss_index.reach(index)
        if recall >= faiss_index.GOAL and (not facts.cells or reach * WALKED <= facts.cells):
            sides.append(Side(sign, index, facts.kind, reach, recall))
            continue
        if everything is None:
            everything = _exact(tokens)
        sides.append(Side(sign, everything, "exact", 0, 1.0))
    return sides


def _exact(tokens: ClassTokens) -> Any:
    """An index that compares a query with every photograph."""
    index = faiss_index.empty_index("exact", tokens)
    faiss_index.add(index, tokens)
    return index


def search(
    sides: Sequence[Side], end_rows: EndRows, numbers: NDArray[np.int64], k: int, progress: Callable[[int], object]
) -> list[NDArray[np.int32]]:
    """The nearest and the farthest photographs of memories (n,): two tables (n, k)."""
    tables = [np.empty((len(numbers), k), np.int32) for _ in sides]
    for start in range(0, len(numbers), BATCH):
        here = slice(start, start + BATCH)
        queries = end_rows(numbers[here])
        for table, side in zip(tables, sides, strict=True):
            table[here] = side.search(queries, k)
        progress(len(queries))
    return tables


def neighbour_maker(
    space: Space, bank_name: str, how: Sequence[tuple[int, str, int, float]], made_for: MadeFor
) -> Callable[[Arrays], Build]:
    """What finds the rows of a task, memories' `keys` (n,) and `numbers` (n,), in another process than `neighbours`.

    `how` has the fields of each `Side` but for its index.
    """
    bank, table, end_rows = space.existing_bank(bank_name), space.neighbours(bank_name), EndRows(space)
    facts, index = bank.index_facts(), bank.whole_index()
    assert facts
    indices = {facts.kind: index}
    if any(kind not in indices for _, kind, _, _ in how):
        indices["exact"] = _exact(bank.class_tokens())
    sides = [Side(sign, indices[kind], kind, reach, recall) for sign, kind, reach, recall in how]

    def make(task: Arrays) -> Build:
        near, far = search(sides, end_rows, task["numbers"], made_for.k, lambda memories: None)
        return partial(table.shard_of, task["keys"], near, far, made_for)

    return make
