"""What pre-training takes of memory and time when its bank is larger than memory: `--bank-reader`, one after another.

    python -m bench.bank_readers [--photographs 100000] [--steps 40]

The bank has the shape that ViT-B/16 gives, 197 tokens of 512 a photograph, 20 GB in all, of random values. Words are
embedded by untrained weights, and the decoder has one layer. Each run is a process of its own, which begins with the
bank dropped from the page cache. `resident`, which that bank is too large for, has one of a hundredth of it. The last
line on stdout has, for each, the peak of the process's own memory in GB (of which mapped files are no part) and the
milliseconds of a step; `ratio` is the streamed step's time over the resident one's.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from bench.machine import about
from bench.material import some_words
from bench.peak import peak
from bench.read_cache import drop
from bench.steady import steady
from cache.space import Space, open_space
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from train.pretrain import pretrain
from train.pretrain_options import PretrainOptions

MODEL, WEIGHTS, BATCH = "ViT-B-16-quickgelu", "untrained:0", 64
TOKENS, WIDTH, IN_SHARD = 197, 512, 330
LARGE, SMALL = "large", "small"


def write_bank(space: Space, name: str, photographs: int) -> None:
    """A bank of random values."""
    bank, random = space.bank(name), np.random.default_rng(0)
    features = random.standard_normal((IN_SHARD, TOKENS, WIDTH), np.float32).astype(np.float16)
    for start in range(0, photographs, IN_SHARD):
        count = min(IN_SHARD, photographs - start)
        keys = np.array([f"{start + n:016}" for n in range(count)], "S16")
        bank.add([f"{key}" for key in keys], keys, np.roll(features, start, 0)[:count], "random values")


def run(cache: Path, bank: str, reader: str, steps: int, out: Path) -> None:
    """One run, in this process; prints the most memory that was its own."""
    options = PretrainOptions(
        ["words"], out, cache=cache, bank=bank, bank_reader=reader, depth=1, batch=BATCH, steps=steps, eval_every=steps,
        eval_words=1, device="cpu",
    )  # fmt: skip
    pretrain(options, lambda text: print(text, file=sys.stderr))
    print(own_peak())


def own_peak() -> int:
    """Bytes: the peak of all, less what of it is mapped files now."""
    mapped = re.search(r"RssFile:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert mapped
    return peak() - 1024 * int(mapped[1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser("bench.bank_readers")
    parser.add_argument("--photographs", type=int, default=100_000)
    parser.add_argument("--words", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--child", nargs=4, metavar=("CACHE", "BANK", "READER", "OUT"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        cache, bank, reader, out = asked.child
        run(Path(cache), bank, reader, asked.steps, Path(out))
        return
    found: dict[str, object] = {**about("bank_readers"), "photographs": asked.photographs}
    steps = {}
    with tempfile.TemporaryDirectory() as name:
        cache = Path(name) / "cache"
        embed_text(cache, Encoder(MODEL, WEIGHTS), collect(some_words(None, asked.words)), "words", lambda text: None)
        space = open_space(cache)
        write_bank(space, SMALL, asked.photographs // 100)
        write_bank(space, LARGE, asked.photographs)
        found["bank_gigabytes"] = round(space.bank(LARGE).bytes / 1e9, 2)
        for bank, reader in ((SMALL, "resident"), (LARGE, "streamed"), (LARGE, "mapped")):
            drop(space.bank(bank).folder)
            out = Path(name) / reader
            child = ["--steps", str(asked.steps), "--child", cache, bank, reader, out]
            done = subprocess.run(
                [sys.executable, "-m", "bench.bank_readers", *map(str, child)], stdout=subprocess.PIPE, check=True
            )
            speed = steady(out)
            steps[reader] = 1e3 * BATCH / speed["words_per_second"]
            found[f"{reader}_gigabytes"] = round(int(done.stdout) / 1e9, 2)
            found[f"{reader}_ms"], found[f"{reader}_waiting"] = round(steps[reader], 1), speed["waiting"]
            shutil.rmtree(out)
    print(json.dumps({**found, "goal_gigabytes": 4, "ratio": round(steps["streamed"] / steps["resident"], 3)}))


if __name__ == "__main__":
    main()
