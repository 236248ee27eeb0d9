"""The manifest is the only truth of which shards exist."""

import json

import numpy as np
import pytest

from cache.collection import Collection
from cache.errors import DptrError
from tests.cache.test_shard import file_size_limit


def contents(folder):
    return [shard["a"][:].tolist() for shard in Collection(folder).shards()]


def test_shards_come_back_in_order(tmp_path):
    collection = Collection(tmp_path / "new")
    for n in range(3):
        collection.append(2, {"a": np.full(2, n)})
    assert contents(tmp_path / "new") == [[0, 0], [1, 1], [2, 2]]
    assert Collection(tmp_path / "new").rows == 6
    assert collection.entries == Collection(tmp_path / "new").entries


def test_line_without_its_end_is_passed_over_and_cut_off(tmp_path):
    Collection(tmp_path).append(1, {"a": np.zeros(1)})
    manifest = tmp_path / "manifest.jsonl"
    whole = manifest.read_bytes()
    for cut in (1, len(whole) // 2, len(whole) - 1):
        manifest.write_bytes(whole + whole[:cut])
        assert len(Collection(tmp_path).entries) == 1
    Collection(tmp_path).append(1, {"a": np.ones(1)})
    assert contents(tmp_path) == [[0], [1]]


def test_shard_without_a_line_is_written_over(tmp_path):
    (tmp_path / "00000.h5").write_bytes(b"half a shard")
    Collection(tmp_path).append(1, {"a": np.zeros(1)})
    assert contents(tmp_path) == [[0]]


@pytest.mark.parametrize("where", ["at once", "in the shard", "before the line", "in the line"])
def test_full_disk_leaves_the_collection_as_it_was(tmp_path, where):
    collection = Collection(tmp_path)
    for n in range(20):
        collection.append(1, {"a": np.full(1, n)})
    before = (tmp_path / "manifest.jsonl").read_bytes()
    limit = {"at once": 0, "in the shard": 1000, "before the line": len(before), "in the line": len(before) + 50}[where]
    assert (tmp_path / "00000.h5").stat().st_size < len(before)
    with file_size_limit(limit), pytest.raises(DptrError, match="cannot write"):
        collection.append(1, {"a": np.zeros(1)})
    assert (tmp_path / "manifest.jsonl").read_bytes() == before
    assert contents(tmp_path) == [[n] for n in range(20)]
    collection.append(1, {"a": np.full(1, 20)})
    assert contents(tmp_path)[-1] == [20]


def test_damaged_manifest_is_named(tmp_path):
    (tmp_path / "manifest.jsonl").write_text(json.dumps({"shard": "0"}) + "\n")
    with pytest.raises(DptrError, match="manifest.jsonl is damaged"):
        Collection(tmp_path)
