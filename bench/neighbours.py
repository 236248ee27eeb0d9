"""A bank's index and its table of neighbours: time, memory, and recall@10.

    python -m bench.neighbours [--photographs 100000] [--memories 20000] [--index auto] [--width 512]

The bank and the memories are synthetic: class tokens around 2,000 means, and end tokens elsewhere around others, as an
encoder's two sides lie apart. A million photographs need 8 GB of disk and of memory. Memory is this process's peak
beyond what it had before, for building the index and for the table; a mapped index counts as far as it is read. The
goal for recall, 0.95, is for the index on photographs and for the table on each side.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.machine import about
from bench.peak import peak
from cache.fingerprint import Fingerprint
from cache.index import KINDS
from cache.keys import as_keys
from cache.space import Space, complete_space
from pipeline.neighbours import neighbours

FINGERPRINT = Fingerprint("bench", "none", {}, "", 0, False, "", "", "shared", {}, "fp32")
SHARD, MEANS, RANK = 8192, 2000, 96  # rows written together; clusters, and the dimensions in which they vary


def rows(count: int, width: int, seed: int) -> Iterator[NDArray[np.float16]]:
    """`count` vectors around MEANS centres of unequal size, in parts of (at most SHARD, width)."""
    random = np.random.default_rng(seed)
    basis = random.normal(size=(RANK, width)).astype(np.float32)
    means = random.normal(size=(MEANS, RANK)).astype(np.float32)
    sizes = random.exponential(size=MEANS)
    offset = random.normal(size=width).astype(np.float32) * RANK**0.5  # which side this is
    for start in range(0, count, SHARD):
        n = min(SHARD, count - start)
        near = means[random.choice(MEANS, n, p=sizes / sizes.sum())] + random.normal(size=(n, RANK)) * 0.7
        yield (near.astype(np.float32) @ basis + offset).astype(np.float16)


def keys(start: int, count: int) -> NDArray[np.bytes_]:
    """Keys of as many rows, all different."""
    return as_keys([(n + 1).to_bytes(16, "big") for n in range(start, start + count)])


def fill(folder: Path, photographs: int, memories: int, width: int) -> Space:
    """A space with a bank `photos` without an index, and a corpus `words`."""
    folder.mkdir()
    constants = {
        "prefix": np.zeros((0, width), np.float16),
        "text_projection": np.eye(width, dtype=np.float32),
    }
    space = complete_space(folder, FINGERPRINT, lambda: constants)
    bank, corpus = space.bank("photos"), space.corpus("words")
    for part in rows(photographs, width, 1):
        start = bank.rows
        bank.add([str(n) for n in range(start, start + len(part))], keys(start, len(part)), part[:, None], "")
    for part in rows(memories, width, 2):
        start = corpus.rows
        named = keys(start, len(part))
        space.memories.add(named, part, np.ones(len(part), np.int64))
        corpus.add([str(n) for n in range(start, start + len(part))], named, [1] * len(part))
    return space


def reset() -> int:
    """Forget the peak; returns what this process has now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=int, default=100_000)
    parser.add_argument("--memories", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--index", choices=KINDS, default="auto")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        space = fill(Path(made) / "space", asked.photographs, asked.memories, asked.width)
        before, began = reset(), time.perf_counter()
        bank = space.bank("photos")
        facts = bank.write_index(asked.index)
        seconds, memory = time.perf_counter() - began, peak() - before
        print(facts, flush=True)
        before, began = reset(), time.perf_counter()
        done = neighbours(space, "words", "photos", None, print)
        result = {
            **about("neighbours"),
            "photographs": asked.photographs,
            "width": asked.width,
            "index": facts.kind,
            "cells": facts.cells,
            "reach": facts.reach,
            "index_seconds": round(seconds, 1),
            "index_memory_mb": round(memory / 1e6),
            "index_file_mb": round((bank.folder / "index.faiss").stat().st_size / 1e6),
            "recall": facts.recall,
            "recall_goal": 0.95,
            "table_memories": done.new,
            "table_seconds": round(time.perf_counter() - began, 1),
            "memories_a_second": round(done.new / done.seconds),
            "table_memory_mb": round((peak() - before) / 1e6),
            "table_searches": done.searches,
            "recall_near_far": done.recall,
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
