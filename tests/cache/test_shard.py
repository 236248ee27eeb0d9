"""A shard is written whole or not at all, and read back as it was."""

import resource
from contextlib import contextmanager

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import DptrError
from cache.shard import map_dataset, open_shard, pack_strings, unpack_strings, write_shard


@contextmanager
def file_size_limit(limit: int):
    """The kernel refuses to let a file of this process grow beyond `limit` bytes: a full disk without a disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_plain_h5py_reads_what_was_written(tmp_path):
    states = np.random.default_rng(0).normal(size=(1000, 7)).astype(np.float16)
    size, _ = write_shard(tmp_path / "0.h5", {"states": states, "one": np.arange(3)})
    with h5py.File(tmp_path / "0.h5") as file:
        assert (file["states"][:] == states).all()
        assert file["states"].chunks is None
        assert file["one"][:].tolist() == [0, 1, 2]
    with open_shard(tmp_path / "0.h5", size) as file:
        mapped = map_dataset(file["states"])
    assert (mapped == states).all()


def test_same_arrays_give_the_same_bytes(tmp_path):
    arrays = {"a": np.arange(10_000), "b": np.ones((4, 4), np.float16)}
    assert write_shard(tmp_path / "0.h5", arrays) == write_shard(tmp_path / "1.h5", arrays)
    assert (tmp_path / "0.h5").read_bytes() == (tmp_path / "1.h5").read_bytes()


def test_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    with file_size_limit(4096), pytest.raises(DptrError, match="cannot write .*0.h5"):
        write_shard(tmp_path / "0.h5", {"a": np.zeros(100_000)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 1, 100, 4095, 4096])
def test_shortened_shard_is_named(tmp_path, keep):
    path = tmp_path / "0.h5"
    size, _ = write_shard(path, {"a": np.zeros(1000)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DptrError, match="0.h5 cannot be read"):
        open_shard(path, size)


def test_missing_shard_is_named(tmp_path):
    with pytest.raises(DptrError, match="0.h5 cannot be read"):
        open_shard(tmp_path / "0.h5", 5)


@given(strings=st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
@settings(max_examples=50)
def test_strings_come_back(strings, tmp_path_factory):
    path = tmp_path_factory.mktemp("strings") / "0.h5"
    size, _ = write_shard(path, pack_strings("labels", strings))
    with open_shard(path, size) as file:
        assert unpack_strings(file, "labels") == strings
