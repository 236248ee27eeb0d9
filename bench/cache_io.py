"""What the cache costs: writing compared with plain writes, opening a million memories, verifying, bytes per word.

    python -m bench.cache_io [WORDS.txt]

Writing: shards as embed-text commits them, compared with writing the same bytes plainly with one fsync per file; the
two take turns on one disk (TMPDIR). Opening: a fresh process opens the cache and finds a memory; bytes read and memory
are those of that process. Verifying: compared with reading and hashing each file, both from the page cache. Bytes per
word: memories and corpus of ViT-B/16, compared with the 78 rows of the released code. Needs 6 GB of disk.
"""

import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.encode_text import MODEL, WEIGHTS
from bench.machine import about
from cache.fingerprint import Fingerprint
from cache.keys import Keys, key_bytes
from cache.memories import Memories
from cache.shard import SHARD_BYTES
from cache.space import complete_space, open_space
from cache.verify import verify
from pipeline.commit import committing
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from sources.signs import signs
from sources.words import Reading, words

MEMORIES, ROWS, WIDTH = 1_000_000, 5, 512
ROUND, RUNS, WORDS = 7, 5, 4096  # shards each side writes in a turn; openings and verifications; words embedded
FINGERPRINT = Fingerprint("bench", "none", {}, "", 0, False, "", "", "compact", {}, "fp32")

OPEN = """
import sys, time
from pathlib import Path
from bench.peak import peak
from cache.space import open_space
from cache.keys import as_keys
import zlib, numpy.linalg
def state():
    fields = dict(line.split(":") for line in Path("/proc/self/io").read_text().splitlines())
    return peak(), int(fields["rchar"])
Path("/proc/self/clear_refs").write_text("5")  # reset the peak
before, began = state(), time.perf_counter()
space = open_space(Path(sys.argv[1]))
number = space.memories.find(as_keys([bytes.fromhex(sys.argv[2])]))[0]
seconds, after = time.perf_counter() - began, state()
assert number == int(sys.argv[3])
print(seconds, after[0] - before[0], after[1] - before[1])
"""


def plain(images: list[bytes], folder: Path) -> float:
    """Seconds to write files plainly, each with an fsync."""
    began = time.perf_counter()
    for number, image in enumerate(images):
        descriptor = os.open(folder / str(number), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        view = memoryview(image)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
        os.close(descriptor)
    seconds = time.perf_counter() - began
    for number in range(len(images)):
        (folder / str(number)).unlink()
    return seconds


def build(folder: Path, keys: Keys) -> list[float]:
    """Build a cache of a million memories; returns the speed relative to plain writing for each round of shards."""
    space_folder = folder / "cache" / FINGERPRINT.folder
    space_folder.mkdir(parents=True)
    memories = complete_space(space_folder, FINGERPRINT, lambda: {"prefix": np.zeros((5, WIDTH), np.float16)}).memories
    per_shard = SHARD_BYTES // (ROWS * WIDTH * 2)
    states = np.random.default_rng(0).normal(size=(per_shard * ROWS, WIDTH)).astype(np.float16)
    lengths, ratios = np.full(per_shard, ROWS), []
    for start in range(0, len(keys), per_shard * ROUND):
        chosen = keys[start : start + per_shard * ROUND]
        parts = [chosen[n : n + per_shard] for n in range(0, len(chosen), per_shard)]
        first, began = len(memories.entries), time.perf_counter()
        with committing(memories) as commit:
            for part in parts:
                commit(memories.shard_of, part, states[: len(part) * ROWS], lengths[: len(part)])
        ours = time.perf_counter() - began
        images = [(memories.folder / e.shard).read_bytes() for e in memories.entries[first:]]
        ratios.append(plain(images, folder) / ours)
    return ratios


def opened(cache: Path, keys: Keys) -> tuple[float, int, int]:
    """Seconds, bytes of memory, bytes read: medians of fresh processes that open a cache and find a memory."""
    asked = len(keys) // 2
    command = [sys.executable, "-c", OPEN, str(cache), key_bytes(keys[asked : asked + 1])[0].hex(), str(asked)]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() for _ in range(RUNS)]
    seconds, memory, read = zip(*runs, strict=True)
    return statistics.median(map(float, seconds)), int(statistics.median(map(int, memory))), int(read[0])


def verified(cache: Path) -> float:
    """The speed of verification relative to reading and hashing every shard."""
    folder = open_space(cache).memories.folder
    ratios = []
    for _ in range(RUNS):
        began = time.perf_counter()
        assert not verify(cache, None, False, lambda read: None).problems
        ours = time.perf_counter() - began
        began = time.perf_counter()
        for path in sorted(folder.glob("*.h5")):
            with path.open("rb") as file:
                hashlib.file_digest(file, "sha256").hexdigest()
        ratios.append((time.perf_counter() - began) / ours)
    return statistics.median(ratios)


def bytes_a_word(folder: Path) -> float:
    """Bytes per word for real words and a real encoder: memories and labels, with their overhead."""
    source = words(sys.argv[1], Reading()) if len(sys.argv) > 1 else signs()
    labels = [label for label, _ in collect(source)]
    chosen = labels[:: max(1, len(labels) // WORDS)][:WORDS]  # spread evenly over the list
    embed_text(folder / "real", Encoder(MODEL, WEIGHTS), collect(chosen), "words", lambda text: None)
    space = open_space(folder / "real")
    return (space.memories.bytes + space.corpus("words").bytes) / len(chosen)


def main() -> None:
    """Measure and print."""
    keys = np.frombuffer(np.random.default_rng(0).bytes(16 * MEMORIES), "S16")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        writing = build(folder, keys)
        assert Memories(open_space(folder / "cache").memories.folder, FINGERPRINT).rows == MEMORIES
        seconds, memory, read = opened(folder / "cache", keys)
        verifying = verified(folder / "cache")
        word = bytes_a_word(folder)
    result = {
        **about("cache_io"),
        "ratio": round(statistics.median(writing), 3),
        "goal": 0.8,
        "ratio_spread": [round(min(writing), 3), round(max(writing), 3)],
        "open_seconds": round(seconds, 3),
        "open_seconds_goal": 1.0,
        "open_memory_bytes_a_memory": round(memory / MEMORIES, 1),
        "open_memory_goal": 32,
        "open_bytes_read_a_memory": round(read / MEMORIES, 1),
        "verify_ratio": round(verifying, 2),
        "bytes_a_word": round(word),
        "smaller_than_released": round(78 * 512 * 2 / word, 1),
        "smaller_goal": 10,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
