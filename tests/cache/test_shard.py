"""A shard is written whole or not at all, and read back as it was."""

import os
from dataclasses import replace

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import Damaged, DptrError
from cache.shard import Place, Shard, make_image, pack_strings, unpack_strings
from cache.shard import write_shard as write_image
from tests.helpers.files import file_size_limit


def write_shard(path, rows, datasets):
    return write_image(path, make_image(rows, datasets))


def test_plain_h5py_reads_what_was_written(tmp_path):
    states = np.random.default_rng(0).normal(size=(1000, 7)).astype(np.float16)
    entry = write_shard(tmp_path / "0.h5", 1000, {"states": states, "one": np.arange(3)})
    with h5py.File(tmp_path / "0.h5") as file:
        assert (file["states"][:] == states).all()
        assert file["states"].chunks is None
        assert file["one"][:].tolist() == [0, 1, 2]
        assert {n: (d.id.get_offset(), d.shape, d.dtype.str) for n, d in file.items()} == {
            name: (place.offset, place.shape, place.dtype) for name, place in entry.datasets.items()
        }
    shard = Shard(tmp_path, entry)
    assert (shard.map("states") == states).all()
    assert (shard.read("states") == states).all()
    into = np.empty_like(states)
    assert shard.read("states", into) is into
    assert (into == states).all()


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), min_size=1, max_size=12),  # rows between, rows wanted
    st.integers(1, 60),
    st.integers(1, 5),
)
def test_rows_are_those_asked_for_however_much_a_call_reads(tmp_path_factory, pieces, bytes_of_a_call, buffers):
    rows = np.arange(200 * 3, dtype=np.int16).reshape(200, 3)
    folder = tmp_path_factory.mktemp("rows")
    shard = Shard(folder, write_shard(folder / "0.h5", 200, {"states": rows}))
    ends = np.cumsum([between + wanted for between, wanted in pieces])
    starts = [end - wanted for end, (_, wanted) in zip(ends.tolist(), pieces, strict=True)]
    outs = [np.full((wanted, 3), -1, np.int16) for _, wanted in pieces]
    plain = os.preadv

    def short(descriptor, views, offset):
        assert len(views) <= buffers
        return plain(descriptor, [views[0][:bytes_of_a_call]], offset)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cache.shard.os.preadv", short)
        patch.setattr("cache.shard.MOST", buffers)
        shard.read_rows("states", starts, outs)
    for start, out in zip(starts, outs, strict=True):
        assert (out == rows[start : start + len(out)]).all()


def test_empty_arrays_come_back(tmp_path):
    entry = write_shard(tmp_path / "0.h5", 1, {"prefix": np.empty((0, 4), np.float16), "a": np.ones(3)})
    assert Shard(tmp_path, entry).read("prefix").shape == (0, 4)


def test_same_arrays_give_the_same_bytes(tmp_path):
    arrays = {"a": np.arange(10_000), "b": np.ones((4, 4), np.float16)}
    one, other = write_shard(tmp_path / "0.h5", 4, arrays), write_shard(tmp_path / "1.h5", 4, arrays)
    assert one == replace(other, shard="0.h5")
    assert (tmp_path / "0.h5").read_bytes() == (tmp_path / "1.h5").read_bytes()


def test_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    with file_size_limit(4096), pytest.raises(DptrError, match="cannot write .*0.h5"):
        write_shard(tmp_path / "0.h5", 1, {"a": np.zeros(100_000)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 1, 100, 4095, 4096, 11_999])
def test_shortened_shard_is_named(tmp_path, keep):
    path = tmp_path / "0.h5"
    entry = write_shard(path, 1, {"a": np.zeros(1000)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(Damaged, match=f"0.h5 is damaged: it has {keep:,} bytes where"):
        Shard(tmp_path, entry)


def test_missing_shard_is_named(tmp_path):
    entry = write_shard(tmp_path / "0.h5", 1, {"a": np.zeros(1000)})
    (tmp_path / "0.h5").unlink()
    with pytest.raises(Damaged, match="0.h5 is damaged: it cannot be read"):
        Shard(tmp_path, entry)


def test_every_flipped_bit_of_a_dataset_is_noticed_by_reading_it(tmp_path):
    path = tmp_path / "0.h5"
    entry = write_shard(path, 1, {"a": np.arange(4), "b": np.arange(2)})
    data, place = path.read_bytes(), entry.datasets["a"]
    for bit in range(32 * 8):
        changed = bytearray(data)
        changed[place.offset + bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(Damaged, match="its a does not match its checksum"):
            Shard(tmp_path, entry).read("a")
        assert Shard(tmp_path, entry).read("b").tolist() == [0, 1]


def test_manifest_that_points_nowhere_is_damage(tmp_path):
    entry = write_shard(tmp_path / "0.h5", 1, {"a": np.arange(4)})
    with pytest.raises(Damaged, match="it has no b"):
        Shard(tmp_path, entry).read("b")
    far = replace(entry, datasets={"a": Place(1 << 40, (4,), "<i8", 0)})
    with pytest.raises(Damaged, match="beyond the file"):
        Shard(tmp_path, far).map("a")
    with pytest.raises(Damaged, match="does not match its checksum"):
        Shard(tmp_path, far).read("a")


@given(strings=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
@settings(max_examples=50)
def test_strings_come_back(strings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("strings")
    entry = write_shard(folder / "0.h5", len(strings), pack_strings("labels", strings))
    assert unpack_strings(Shard(folder, entry), "labels") == strings
