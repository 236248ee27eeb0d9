"""Readers during a write, and two writers of one space: real processes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from cache.keys import as_keys
from cache.memories import Memories, MemoryReader, key_of
from tests.helpers.fingerprint import ONE

WRITE = """
import sys
from pathlib import Path
import numpy as np
from cache.keys import as_keys
from cache.lock import writing
from cache.memories import Memories, key_of
from tests.cache.test_fingerprint import ONE
folder = Path(sys.argv[1])
with writing(folder):
    memories = Memories(folder, ONE)
    print("locked", flush=True)
    for shard in range(int(sys.argv[2])):
        if shard % 10 == 0:
            sys.stdin.readline()
        numbers = range(shard * 10, shard * 10 + 10)
        states = np.repeat(np.array(numbers, np.float16), 3)[:, None] * np.ones(4, np.float16)
        memories.add(as_keys([key_of([n]) for n in numbers]), states, np.full(10, 3))
"""


def writer(folder, shards):
    return subprocess.Popen(
        [sys.executable, "-c", WRITE, str(folder), str(shards)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": "."},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_readers_see_whole_shards_while_one_writes(tmp_path):
    process = writer(tmp_path, 150)
    assert process.stdout.readline() == "locked\n"
    count = 0
    for wanted in range(100, 1501, 100):  # the writer does ten shards, and waits
        process.stdin.write("go on\n")
        process.stdin.flush()
        while count < wanted:
            memories = Memories(tmp_path, ONE)
            assert memories.rows >= count
            count = memories.rows
            assert count % 10 == 0
            if not count:
                continue
            asked = np.arange(count)
            numbers = memories.find(as_keys([key_of([n]) for n in asked]))
            states, _ = MemoryReader(memories).gather(numbers)
            assert (numbers == asked).all()
            assert (states[::3, 0] == asked.astype(np.float16)).all()
    process.communicate()
    assert process.returncode == 0


def test_second_writer_stops_and_spoils_nothing(tmp_path):
    first = writer(tmp_path, 100)
    assert first.stdout.readline() == "locked\n"
    second = writer(tmp_path, 100)
    _, told = second.communicate()
    assert second.returncode == 1
    assert f"is being written by process {first.pid} on " in told
    first.communicate("go on\n" * 10)
    assert first.returncode == 0
    memories = Memories(tmp_path, ONE)
    assert memories.rows == 1000
    assert len(set(memories.find(as_keys([key_of([n]) for n in range(1000)])).tolist())) == 1000
