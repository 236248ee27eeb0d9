"""The manifest is the only truth of which shards exist."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from cache.collection import Collection
from cache.errors import Damaged, DptrError
from tests.helpers.files import file_size_limit
from tests.helpers.fingerprint import ONE


def collection(folder):
    return Collection(folder, ONE)


def append(made, rows, datasets):
    made.commit(made.image(rows, datasets))


def contents(folder):
    return [shard.read("a").tolist() for shard in collection(folder).shards()]


def filled(folder, count):
    made = collection(folder)
    for n in range(count):
        append(made, 1, {"a": np.full(1, n)})
    return made


def test_shards_come_back_in_order(tmp_path):
    made = collection(tmp_path / "new")
    for n in range(3):
        append(made, 2, {"a": np.full(2, n)})
    assert contents(tmp_path / "new") == [[0, 0], [1, 1], [2, 2]]
    assert collection(tmp_path / "new").rows == 6
    assert made.entries == collection(tmp_path / "new").entries


def test_line_without_its_end_is_passed_over_and_cut_off(tmp_path):
    filled(tmp_path, 1)
    manifest = tmp_path / "manifest.jsonl"
    whole = manifest.read_bytes()
    for cut in range(1, len(whole)):
        manifest.write_bytes(whole + whole[:cut])
        assert len(collection(tmp_path).entries) == 1
    append(collection(tmp_path), 1, {"a": np.ones(1)})
    assert contents(tmp_path) == [[0], [1]]


def test_every_flipped_bit_of_a_manifest_is_noticed(tmp_path):
    filled(tmp_path, 3)
    manifest = tmp_path / "manifest.jsonl"
    whole = manifest.read_bytes()
    for bit in range(0, len(whole) * 8, 3):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        manifest.write_bytes(changed)
        with pytest.raises(Damaged, match=r"manifest.jsonl is damaged: (line \d is not|its last line)"):
            collection(tmp_path)


def test_shard_without_a_line_is_written_over(tmp_path):
    (tmp_path / "00000.h5").write_bytes(b"half a shard")
    filled(tmp_path, 1)
    assert contents(tmp_path) == [[0]]


def test_dropped_shard_is_made_again_in_its_place(tmp_path):
    made = filled(tmp_path, 4)
    before = (tmp_path / "manifest.jsonl").read_bytes()
    made.replace([e for e in made.entries if e.shard != "00001.h5"], [])
    assert contents(tmp_path) == [[0], [2], [3]]
    again = collection(tmp_path)
    append(again, 1, {"a": np.full(1, 1)})
    assert (tmp_path / "manifest.jsonl").read_bytes() == before
    append(again, 1, {"a": np.full(1, 4)})
    assert contents(tmp_path) == [[0], [1], [2], [3], [4]]


@pytest.mark.parametrize("where", ["at once", "in the shard", "before the line", "in the line"])
def test_full_disk_leaves_the_collection_as_it_was(tmp_path, where):
    made = filled(tmp_path, 20)
    before = (tmp_path / "manifest.jsonl").read_bytes()
    limit = {"at once": 0, "in the shard": 1000, "before the line": len(before), "in the line": len(before) + 50}[where]
    assert (tmp_path / "00000.h5").stat().st_size < len(before)
    with file_size_limit(limit), pytest.raises(DptrError, match="cannot write"):
        append(made, 1, {"a": np.zeros(1)})
    assert (tmp_path / "manifest.jsonl").read_bytes() == before
    assert contents(tmp_path) == [[n] for n in range(20)]
    append(made, 1, {"a": np.full(1, 20)})
    assert contents(tmp_path)[-1] == [20]


def test_a_line_comes_after_its_shard_is_on_the_disk(tmp_path, monkeypatch):
    """File, rename, folder, line, each with its fsync: a power cut never leaves a line without its shard."""
    calls = []

    def watch(name, describe):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a: (calls.append(f"{name} {describe(*a)}"), call(*a))[1])

    def target(descriptor, *_):
        return os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))

    made = filled(tmp_path, 1)
    watch("write", target)
    watch("fsync", target)
    watch("rename", lambda a, b: f"{a.name} {b.name}")
    append(made, 1, {"a": np.zeros(1)})
    assert calls == [
        "write 00001.h5.tmp",
        "fsync 00001.h5.tmp",
        "rename 00001.h5.tmp 00001.h5",
        f"fsync {tmp_path.name}",
        "write manifest.jsonl",
        "fsync manifest.jsonl",
    ]


def test_new_folders_are_on_the_disk_before_what_is_in_them(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda d: (synced.append(os.readlink(f"/proc/self/fd/{d}")), fsync(d))[1])
    filled(tmp_path / "a" / "b", 1)
    assert synced[:3] == [str(tmp_path / "a"), str(tmp_path), str(tmp_path / "a" / "b" / "00000.h5.tmp")]


@pytest.mark.parametrize("line", [{"shard": "0"}, [], 1, {}, {"crc32": 0}])
def test_damaged_manifest_is_named(tmp_path, line):
    (tmp_path / "manifest.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(Damaged, match="manifest.jsonl is damaged: line 1"):
        collection(tmp_path)


def test_shard_of_another_encoder_is_refused_with_both_values(tmp_path):
    filled(tmp_path / "here", 1)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    other = replace(ONE, prompt="{label}", compute="bf16")
    with pytest.raises(DptrError) as caught:
        Collection(tmp_path / "there", other)
    assert "prompt: {label} / a photo of a '{label}'" in str(caught.value)
    assert "compute: bf16 / fp32" in str(caught.value)
    moved = Collection(tmp_path / "there", replace(ONE, pretrained="moved.pt"))  # the same encoder, found elsewhere
    assert moved.rows == 1


def test_reader_is_told_when_a_shard_was_taken_away(tmp_path):
    made = filled(tmp_path, 3)
    reader = collection(tmp_path)
    reading = reader.shards()
    next(reading)
    made.replace(made.entries[:2], [])
    with pytest.raises(DptrError, match="was cleaned or repaired by another process"):
        list(reading)


def test_reader_is_not_disturbed_by_a_writer(tmp_path):
    made = filled(tmp_path, 3)
    reading = collection(tmp_path).shards()
    next(reading)
    append(made, 1, {"a": np.full(1, 3)})
    assert [shard.read("a").tolist() for shard in reading] == [[1], [2]]
