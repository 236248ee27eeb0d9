"""What it costs to spread embedding over workers: linearity, the driver's memory, and the overhead of coordination.

    python -m bench.workers [--words N] [--fewer N] [--workers W] [--rate R]

The encoder is a stub that sleeps as long as a card would compute (R words a second, by default what an H200 was
measured to commit) and gives rows of 8 values, so that more workers than cores, and more words than fit on a disk, can
be measured. Shards are as much smaller: they have as many words as real ones. Everything else is real: cleaning,
tokenising, SQLite, tasks, claims, HDF5, checksums, fsync, the manifest. The other side is one process with the same
stub and ten shards. Both, and fewer words for comparison, run in processes of their own.

At the rate of a card the processes take more than two cores, so the overhead is also the machine's. At a rate that they
can follow, such as 3,000, it is that of claims, polling, handing over, and of the last shards, of which some workers
have one less to make: `of_which_last_shards` is what these cost by themselves.
"""

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import h5py  # noqa: F401  or each process that is forked would import it while it is timed
import numpy as np
import torch

import pipeline.embed_text as stage
import pipeline.encoder
from bench.machine import about
from bench.peak import peak
from cache.files import write_whole
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from pipeline.workers.crew import Volunteers
from pipeline.workers.driver import Driver
from pipeline.workers.worker import work

WIDTH, SHARD_WORDS, ROWS = 8, 12_000, 10  # 64 MB are so many words of 5.3 kB; a word of the bench has 10 rows
MOST = {"overhead": 0.03, "bytes_a_word": 20}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser("bench.workers")
    parser.add_argument("--words", type=int, default=1_000_000)
    parser.add_argument("--fewer", type=int, help="words to compare with; by default half as many")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rate", type=float, default=14_236, help="words a second of a worker")
    asked = parser.parse_args()
    torch.set_num_threads(1)  # the threads of this process would be missing in those that it forks
    fewer, alone = asked.fewer or asked.words // 2, min(asked.words, 10 * SHARD_WORDS)
    stage.SHARD_BYTES = SHARD_WORDS * ROWS * WIDTH * 2
    encoder = stub(asked.rate)
    pipeline.encoder.space_encoder = lambda *_: encoder  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:
        one = measured(Path(folder) / "one", encoder, alone, 0)
        part = measured(Path(folder) / "part", encoder, fewer, asked.workers)
        whole = measured(Path(folder) / "whole", encoder, asked.words, asked.workers)
    spread, shards = whole["encoding"] * asked.workers / asked.words, asked.words / SHARD_WORDS
    result = {
        **about("workers"),
        "words": asked.words,
        "workers": asked.workers,
        "words_per_second_of_a_worker": asked.rate,
        "words_per_second": round(asked.words / whole["encoding"]),
        "overhead_over_one_process": round(spread / (one["encoding"] / alone) - 1, 4),
        "overhead_over_the_encoder": round(spread * asked.rate - 1, 4),
        "of_which_last_shards": round(math.ceil(shards / asked.workers) * asked.workers / shards - 1, 4),
        "linear": round(whole["encoding"] / part["encoding"] * fewer / asked.words, 4),
        "linear_with_tokenising": round(whole["all"] / part["all"] * fewer / asked.words, 4),
        "bytes_a_word": round((whole["peak"] - part["peak"]) / (asked.words - fewer), 1),
        "temporary_bytes_a_word": round(whole["temporary_bytes"] / asked.words),
        "driver_processor_seconds_a_million": round(whole["processor"] / asked.words * 1e6, 1),
        "seconds": {"one": one, "fewer": part, "whole": whole},
        "goal": MOST,
    }
    print(json.dumps(result))


def stub(rate: float) -> Encoder:
    """wordclip2's tokens, and states that cost time and nothing else."""
    encoder = Encoder("wordclip2", "untrained:0", precision="fp32", device="cpu")
    prefix = len(encoder.prompt.prefix)

    def text_states(ids: list[list[int]], *_: object) -> np.ndarray:
        until = time.perf_counter() + len(ids) / rate
        states = np.zeros((sum(map(len, ids)) - len(ids) * prefix, WIDTH), np.float16)
        time.sleep(max(0.0, until - time.perf_counter()))
        return states

    real = encoder.text_states
    encoder.text_states = lambda ids, *more: real(ids, *more) if len(ids) < 100 else text_states(ids)  # type: ignore
    encoder.width = WIDTH
    return encoder


def labels(count: int) -> Iterator[str]:
    """Different words of 8 letters and digits, in no order."""
    return (f"{n * 2_654_435_761 % 2**32:08x}" for n in range(count))


def measured(cache: Path, encoder: Encoder, count: int, workers: int) -> dict[str, float]:
    """Seconds of encoding, counting and all; processor seconds, peak memory and temporary disk of the driver."""
    print(f"{count:,} words, {workers or 'no'} workers ...", file=sys.stderr)
    servants = [started(lambda: work(cache, None, str, 600.0)) for _ in range(workers)]
    told = cache.parent / f"{cache.name}.json"

    def drive() -> None:
        began, processor = time.perf_counter(), time.process_time()
        elsewhere = Driver(Volunteers(str), str) if workers else None
        words = collect(labels(count))
        counted = round(time.perf_counter() - began, 2)
        done = embed_text(cache, encoder, words, "words", str, elsewhere=elsewhere)
        assert done.new_memories == count
        seconds = {"encoding": done.seconds, "counting": counted, "all": round(time.perf_counter() - began, 2)}
        ((pages, size),) = words.database.execute("SELECT * FROM pragma_page_count, pragma_page_size")
        seconds |= {"peak": peak(), "temporary_bytes": pages * size}
        write_whole(told, json.dumps({**seconds, "processor": time.process_time() - processor}).encode())

    os.waitpid(started(drive), 0)
    for servant in servants:
        os.kill(servant, 9)
        os.waitpid(servant, 0)
    found = dict(json.loads(told.read_text()))
    print(found, file=sys.stderr)
    return found


def started(what: object) -> int:
    """The number of a process that does it."""
    child = os.fork()
    if not child:
        try:
            what()  # type: ignore[operator]
        finally:
            os._exit(0)
    return child


if __name__ == "__main__":
    main()
