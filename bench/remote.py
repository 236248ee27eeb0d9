"""Streaming a cache out of S3 compared with plain ranged reads of it: 50 ms away, 1 % of answers wrong.

    python -m bench.remote [--rate MB_PER_SECOND]

moto's server (bench/s3_server.py), in a process of its own on the same cores, holds 256 MB of random memories of 3 to 7
rows of width 512 in shards of 16 MB. Raw: as many threads as dptr has, each block of 1 MiB by one ranged GET of boto3,
in random order; what is cut off or refused is asked for again, and nobody looks at the bytes. The same with obstore,
which dptr uses. Streamed: an epoch of `--reader streamed` with nothing on the local disk; then a second epoch, from the
disk. In turn, RUNS times; medians. Every batch of one more epoch is compared with the one read from the folder that was
pushed. `bytes_ratio` is what the server sent in the bodies of an epoch over the bytes of the states.
--rate is that of the line to the server; without it, server and client are held up by the cores that they share.
Needs 1.5 GB of disk (TMPDIR).
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.machine import about
from bench.read_cache import BATCH, FINGERPRINT, WIDTH
from cache.lock import writing
from cache.memories import BLOCK, MemoryReader
from cache.objects import TOGETHER
from cache.space import complete_space, open_space
from cache.stores import open_store
from cache.transfer import push
from models.charset import Charset
from train.data.plan import Plan
from train.data.readers import Reader, open_reader
from train.data.words import Words

LATENCY, WRONG, SHARDS, SHARD_BYTES, RUNS = 0.05, 0.01, 16, 16 << 20, 3
URL, CPU = Path("s3://bench/cache"), torch.device("cpu")
KEYS = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


def build(cache: Path) -> None:
    """A space with memories and nothing else."""
    chance = np.random.default_rng(0)
    folder = cache / FINGERPRINT.folder
    folder.mkdir(parents=True)
    with writing(folder):
        space = complete_space(folder, FINGERPRINT, lambda: {"prefix": np.zeros((0, WIDTH), np.float16)})
        for _ in range(SHARDS):
            lengths = chance.integers(3, 8, SHARD_BYTES // (5 * WIDTH * 2))
            states = chance.integers(0, 0x3C00, (lengths.sum(), WIDTH), np.uint16).view(np.float16)
            space.memories.add(np.frombuffer(chance.bytes(16 * len(lengths)), "S16"), states, lengths)


def all_words(memories: int) -> Words:
    """A word for each memory."""
    charset = Charset()
    return Words(charset.rows(["word"] * memories, 25), np.arange(memories), charset)


def reader_of(cache: Path) -> MemoryReader:
    """A reader of all memories."""
    return MemoryReader(open_space(cache).memories)


def raw(get: Callable[[str, int, int], bytes], ranges: list[tuple[str, int, int]]) -> float:
    """Bytes per second of plain ranged reads, by a function of object, first byte and bytes."""

    def read(one: tuple[str, int, int]) -> int:
        while True:
            try:
                return len(get(*one))
            except Exception:  # cut off; a 503 is asked for again by the client
                continue

    random.shuffle(ranges)
    began = time.perf_counter()
    with ThreadPoolExecutor(TOGETHER) as pool:
        total = sum(pool.map(read, ranges))
    return total / (time.perf_counter() - began)


def ranges_of(cache: Path) -> list[tuple[str, int, int]]:
    """All bytes of the states as ranges of a block each: object, first byte, bytes."""
    memories, found = open_space(cache).memories, []
    for entry in memories.entries:
        place = entry.datasets["states"]
        name, size = f"cache/{FINGERPRINT.folder}/memories/{entry.shard}", place.shape[0] * WIDTH * 2
        found += [(name, place.offset + at, min(BLOCK, size - at)) for at in range(0, size, BLOCK)]
    return found


def epoch(streamed: Reader, number: int) -> float:
    """Bytes of states per second."""
    size, began = 0, time.perf_counter()
    for _, states, _ in streamed.epoch(Plan(BATCH, 0), number):
        size += states.nbytes
    return size / (time.perf_counter() - began)


def differing(ours: MemoryReader, theirs: MemoryReader, words: Words) -> int:
    """Batches of an epoch that are not the same from both."""
    both = [open_reader("streamed", reader, words, CPU).epoch(Plan(BATCH, 0), 9) for reader in (ours, theirs)]
    return sum(not torch.equal(one[1], other[1]) for one, other in zip(*both, strict=True))


def measure(cache: Path, disk: Path, address: str) -> dict[str, Any]:
    """The figures."""
    import boto3
    from botocore.config import Config

    def sent() -> dict[str, int]:
        with urllib.request.urlopen(f"{address}/sent") as answer:
            return dict(json.load(answer))

    client = boto3.client("s3", config=Config(max_pool_connections=TOGETHER))
    client.create_bucket(Bucket="bench")
    cloud = open_store("s3://bench")

    def boto(name: str, start: int, size: int) -> bytes:
        return client.get_object(Bucket="bench", Key=name, Range=f"bytes={start}-{start + size - 1}")["Body"].read()

    going = push(cache, URL, None)
    began = time.perf_counter()
    going.run(lambda count: None)
    found = defaultdict(list, push_mb_per_second=[going.bytes / 1e6 / (time.perf_counter() - began)])
    ours, ranges = reader_of(cache), ranges_of(cache)
    words = all_words(len(ours.length))
    size = ours.nbytes(words.memories)
    for run in range(RUNS):
        plain = raw(boto, ranges)
        found["raw_obstore_mb_per_second"].append(raw(cloud.range, ranges) / 1e6)
        shutil.rmtree(disk, ignore_errors=True)
        began = time.perf_counter()
        theirs = reader_of(URL)
        found["open_seconds"].append(time.perf_counter() - began)
        before, reader = sent()["bytes"], open_reader("streamed", theirs, words, CPU)
        streamed = epoch(reader, run)
        found["bytes_ratio"].append((sent()["bytes"] - before) / size)
        again = epoch(reader, run + RUNS)
        found["raw_mb_per_second"].append(plain / 1e6)
        found["streamed_mb_per_second"].append(streamed / 1e6)
        found["from_local_disk_mb_per_second"].append(again / 1e6)
        found["ratio"].append(streamed / plain)
    shutil.rmtree(disk, ignore_errors=True)
    wrong = differing(ours, reader_of(URL), words)
    medians = {name: float(f"{statistics.median(values):.3g}") for name, values in found.items()}
    spread = [float(f"{bound(found['ratio']):.3g}") for bound in (min, max)]
    injected = {name: sent().get(name, 0) for name in ("requests", "busy", "cut", "flipped")}
    return {**medians, "ratio_spread": spread, "differing_batches": wrong, "injected": injected}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=0.0)
    rate = parser.parse_args().rate
    command = [sys.executable, "-m", "bench.s3_server", str(LATENCY), str(WRONG), str(rate * 1e6)]
    with (
        tempfile.TemporaryDirectory() as made,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **KEYS}
        ) as server,
    ):
        assert server.stdin
        assert server.stdout
        address = server.stdout.readline().strip()
        os.environ.update(KEYS, AWS_ENDPOINT_URL=address, DPTR_DISK=f"{made}/disk")
        build(Path(made) / "cache")
        figures = measure(Path(made) / "cache", Path(made) / "disk", address)
        server.stdin.close()
    print(json.dumps({**about("remote"), "rate_mb_per_second": rate, **figures, "goal": 0.9, "goal_bytes_ratio": 1.05}))


if __name__ == "__main__":
    main()
