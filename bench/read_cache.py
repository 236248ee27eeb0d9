"""Memories per second of the three readers, cold and warm, compared with reading the same shards sequentially.

    python -m bench.read_cache

A gigabyte of random memories of 3 to 7 rows of width 512; a twentieth of them is held out, so the readers skip it.
Cold: all shards are dropped from the page cache first. A reader's rate is the bytes of states it yields per second. The
sequential rate is bytes of files per second, read by one thread in pieces of 4 MiB. A ratio is the one over the other,
measured in turn in the same state. `streamed` is an epoch after the first, so that its buffers exist. `resident` is
loading, after which it does not touch the disk. `mapped`, when cold, is measured on a few batches, because an epoch
would take minutes. Memory: peaks of fresh processes that stream an epoch of a part of the cache. Needs 1.1 GB of disk
(TMPDIR) and as much free memory.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.machine import about
from cache.fingerprint import Fingerprint
from cache.memories import Memories, MemoryReader
from cache.shard import SHARD_BYTES
from models.charset import Charset
from models.device import choose_device
from train.data.plan import Plan
from train.data.readers import Reader, Resident, open_reader
from train.data.words import Words

WIDTH, SHARDS, RUNS, BATCH, FEW = 512, 16, 5, 384, 20
FINGERPRINT = Fingerprint("bench", "none", {}, "", 0, False, "", "", "compact", {}, "fp32")

PEAK = """
import sys
from pathlib import Path
from bench.peak import peak
from bench.read_cache import BATCH, opened, some_words
from train.data.plan import Plan
from train.data.readers import open_reader
import torch
reader = opened(Path(sys.argv[1]), int(sys.argv[2]))
words = some_words(len(reader.length))
streamed = open_reader("streamed", reader, words, torch.device("cpu"))
for _ in streamed.epoch(Plan(BATCH, 0), 0): pass
print(peak())
"""


def build(folder: Path) -> None:
    """A gigabyte of memories."""
    random = np.random.default_rng(0)
    for _ in range(SHARDS):
        lengths = random.integers(3, 8, SHARD_BYTES // (5 * WIDTH * 2))
        states = random.integers(0, 0x3C00, (lengths.sum(), WIDTH), np.uint16).view(np.float16)
        Memories(folder, FINGERPRINT).add(np.frombuffer(random.bytes(16 * len(lengths)), "S16"), states, lengths)


def opened(folder: Path, shards: int = SHARDS) -> MemoryReader:
    """A reader of the first shards."""
    memories = Memories(folder, FINGERPRINT)
    memories.entries = memories.entries[:shards]
    return MemoryReader(memories)


def some_words(memories: int) -> Words:
    """Words of 1 to 25 letters for 19 of 20 memories, in another order than theirs."""
    random, charset = np.random.default_rng(1), Charset()
    numbers = random.permutation(memories)[: memories * 19 // 20]
    lengths = random.integers(1, 26, len(numbers))[:, None]
    ids = random.integers(1, charset.head, (len(numbers), 27)).astype(np.uint8)
    ids[np.arange(27) == lengths + 1] = 0
    ids[np.arange(27) > lengths + 1] = charset.pad
    return Words(ids, numbers, charset)


def drop(folder: Path) -> None:
    """Let the page cache forget the shards."""
    for path in folder.glob("*.h5"):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def from_disk() -> int:
    """Bytes that this process has read from disk so far."""
    return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["read_bytes"])


def sequential(folder: Path) -> float:
    """Bytes per second when every shard is read from end to end."""
    buffer, total, began = memoryview(bytearray(4 << 20)), 0, time.perf_counter()
    for path in sorted(folder.glob("*.h5")):
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                total += count
    return total / (time.perf_counter() - began)


def epoch(reader: Reader, number: int, most: int) -> tuple[float, float]:
    """Memories and bytes per second of an epoch, or of its first `most` batches."""
    memories, size, began = 0, 0, time.perf_counter()
    for n, (words, states, _) in enumerate(reader.epoch(Plan(BATCH, 0), number)):
        memories, size = memories + len(words), size + states.nbytes
        if n + 1 == most:
            break
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    return memories / seconds, size / seconds


def loading(folder: Path, words: Words, device: torch.device) -> tuple[tuple[float, float], Resident]:
    """Memories and bytes per second of making all memories resident; and the reader."""
    reader, began = opened(folder), time.perf_counter()
    resident = Resident(reader, words, device)
    seconds = time.perf_counter() - began
    return (len(words) / seconds, reader.nbytes(words.memories) / seconds), resident


def measure(folder: Path, words: Words) -> dict[str, Any]:
    """Medians of memories per second and of ratios, by reader and state."""
    found, device = defaultdict(list), choose_device("auto")
    streamed = open_reader("streamed", opened(folder), words, device)
    epoch(streamed, RUNS, 0)
    for run in range(RUNS):
        for state in ("cold", "warm"):

            def prepare(state: str = state) -> None:
                if state == "cold":
                    drop(folder)

            prepare()
            before = from_disk()
            whole = sequential(folder)
            if state == "cold":
                found["cold_share_from_disk"].append((from_disk() - before) / (SHARDS * SHARD_BYTES))
            found[f"sequential_{state}_gb_per_second"].append(whole / 1e9)
            sides = {}
            prepare()
            sides["streamed"] = epoch(streamed, run, 0)
            prepare()
            sides["resident"], resident = loading(folder, words, device)
            if state == "warm":
                found["resident_epoch_memories_per_second"].append(epoch(resident, run, 0)[0])
            del resident
            prepare()
            mapped = open_reader("mapped", opened(folder), words, device)
            sides["mapped"] = epoch(mapped, run, FEW if state == "cold" else 0)
            del mapped  # mapped pages would stay in the page cache
            for name, (memories, size) in sides.items():
                found[f"{name}_{state}_memories_per_second"].append(memories)
                found[f"{name}_{state}_ratio"].append(size / whole)
    figures = {name: float(f"{statistics.median(values):.3g}") for name, values in found.items()}
    return {**figures, "ratio_spread": [round(bound(found["streamed_cold_ratio"]), 3) for bound in (min, max)]}


def peaks(folder: Path) -> list[int]:
    """Megabytes at the peak of a process that streams a quarter, a half, and all of the cache."""
    found = []
    for shards in (SHARDS // 4, SHARDS // 2, SHARDS):
        command = [sys.executable, "-c", PEAK, str(folder), str(shards)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(int(done.stdout) // 1_000_000)
    return found


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "memories"
        build(folder)
        figures = measure(folder, some_words(len(opened(folder).length)))
        memory = peaks(folder)
    result = {**about("read_cache"), **figures, "streamed_peak_mb_of_quarter_half_whole": memory}
    ratio = figures["streamed_cold_ratio"]
    print(json.dumps({**result, "device": choose_device("auto").type, "ratio": ratio, "goal": 0.8}))


if __name__ == "__main__":
    main()
