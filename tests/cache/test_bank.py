"""A bank gives back features, names and skipped pictures, and its index finds nearest photographs."""

import faiss
import numpy as np
import pytest

from cache.bank import Bank, picture_key
from cache.errors import Damaged, DptrError
from cache.keys import as_keys
from tests.helpers.fingerprint import ONE


@pytest.fixture
def bank(tmp_path):
    random = np.random.default_rng(0)
    bank = Bank(tmp_path / "coco", ONE)
    for start in (0, 4):
        names = [f"{n}.jpg" for n in range(start, start + 4)]
        features = random.normal(size=(4, 5, 8)).astype(np.float16)
        bank.add(names, as_keys([picture_key(n.encode()) for n in names]), features, "as it is")
    return bank


def test_everything_comes_back(bank):
    again = Bank(bank.folder, ONE)
    assert again.features().shape == (8, 5, 8)
    assert again.ids() == [f"{n}.jpg" for n in range(8)]
    assert len(set(again.keys().tolist())) == 8


def test_features_keep_the_order_of_shards(bank):
    parts = [shard.read("features") for shard in bank.shards()]
    assert (bank.features() == np.concatenate(parts)).all()


def test_index_is_plain_faiss_over_class_tokens(bank):
    bank.write_index()
    index = faiss.read_index(str(bank.folder / "index.faiss"))
    rows = bank.features()[:, 0].astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    similarity, found = index.search(rows, 3)
    expected = np.sort(rows @ rows.T, axis=1)[:, ::-1][:, :3]
    assert np.allclose(similarity, expected, atol=1e-5)
    assert found[:, 0].tolist() == list(range(8))


def test_index_is_made_anew_when_the_bank_grew(bank):
    bank.write_index()
    bank.add(["8.jpg"], as_keys([picture_key(b"8")]), np.ones((1, 5, 8), np.float16), "as it is")
    bank.write_index()
    assert faiss.read_index(str(bank.folder / "index.faiss")).ntotal == 9


def test_skipped_pictures_add_up(bank):
    bank.record_skipped({"a": "it is empty"})
    bank.record_skipped({})
    bank.record_skipped({"b": "it is not a picture"})
    assert Bank(bank.folder, ONE).skipped() == {"a": "it is empty", "b": "it is not a picture"}


def test_empty_bank_is_an_error(tmp_path):
    with pytest.raises(DptrError, match="bank 'x' is empty"):
        Bank(tmp_path / "x", ONE).features()


def test_index_grown_step_by_step_is_the_one_built_at_once(bank):
    bank.write_index()
    bank.add(["8.jpg"], as_keys([picture_key(b"8")]), np.ones((1, 5, 8), np.float16), "as it is")
    bank.write_index()
    grown = (bank.folder / "index.faiss").read_bytes()
    (bank.folder / "index.faiss").unlink()
    bank.write_index()
    assert (bank.folder / "index.faiss").read_bytes() == grown


def test_damage_to_index_and_list_is_named(bank):
    bank.write_index()
    bank.record_skipped({"a": "it is empty"})
    for name, use in (("index.faiss", bank.index), ("skipped.json", bank.skipped)):
        data = (bank.folder / name).read_bytes()
        for bit in range(0, len(data) * 8, 7):
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            (bank.folder / name).write_bytes(changed)
            if name == "skipped.json" and changed.split() == data.split():
                continue  # one white space for another
            with pytest.raises(Damaged, match=f"{name} is damaged"):
                use()
        (bank.folder / name).write_bytes(data[:-9])
        with pytest.raises(Damaged, match=f"{name} is damaged"):
            use()


def test_index_of_a_larger_bank_is_refused(bank):
    bank.write_index()
    bank.replace(bank.entries[:1], [])
    with pytest.raises(Damaged, match="it covers 8 pictures and the bank has 4"):
        bank.index()
