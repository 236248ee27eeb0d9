"""What is exported is what is cached, in files that numpy and pyarrow read."""

import json

import numpy as np
import pytest
from pyarrow import parquet

from cache.errors import DptrError, WrongUse
from cache.export import export_bank, export_corpus
from cache.keys import key_bytes
from cache.memories import MemoryReader
from cache.space import open_space
from pipeline.embed_text import embed_text
from pipeline.labels import collect
from tests.helpers.files import file_size_limit


def test_corpus_comes_out_as_it_is(tmp_path, encoder, monkeypatch):
    monkeypatch.setattr("pipeline.embed_text.CORPUS_BYTES", 1000)
    monkeypatch.setattr("cache.export.PAGE", 7)
    embed_text(tmp_path / "c", encoder, collect(["x", "y"]), "before", print)
    words = ["Hello", "street", "hello", "EXIT", "street", *map(str, range(60))]
    embed_text(tmp_path / "c", encoder, collect(words), "words", print)
    space = open_space(tmp_path / "c")
    told = []
    assert export_corpus(space, "words", tmp_path / "out", told.append) == 64
    table = parquet.read_table(tmp_path / "out" / "labels.parquet").to_pydict()
    states = np.load(tmp_path / "out" / "memories.npy")
    assert table["label"] == list(dict.fromkeys(words))
    assert table["count"][1] == 2
    assert table["memory"][:4] == [0, 1, 0, 2]  # this tokenizer does not keep case
    assert states.dtype == np.float16
    reader = MemoryReader(space.memories)
    numbers = space.memories.find(space.corpus("words").keys())
    for number, start, rows in zip(numbers, table["start"], table["rows"], strict=True):
        assert (states[start : start + rows] == reader.gather(np.array([number]))[0]).all()
    assert sum(told) == 64 + 63
    assert len(states) == sum(dict(zip(table["memory"], table["rows"], strict=True)).values())
    constants = space.constants()
    for name in ("prefix", "text_projection"):
        assert (np.load(tmp_path / "out" / f"{name}.npy") == constants[name]).all()
    assert json.loads((tmp_path / "out" / "space.json").read_text())["digest"] == space.digest


def test_bank_comes_out_as_it_is(cache, tmp_path):
    bank = open_space(cache).bank("noise")
    assert export_bank(open_space(cache), "noise", tmp_path / "out", lambda n: None) == 5
    assert (np.load(tmp_path / "out" / "features.npy") == bank.features()).all()
    table = parquet.read_table(tmp_path / "out" / "pictures.parquet").to_pydict()
    assert table["id"] == bank.ids()
    assert [bytes.fromhex(key) for key in table["key"]] == key_bytes(bank.keys())


def test_nothing_is_written_over_and_nothing_is_left_half(cache, tmp_path):
    space = open_space(cache)
    with pytest.raises(WrongUse, match="already exists"):
        export_bank(space, "noise", tmp_path, lambda n: None)
    with pytest.raises(WrongUse, match="no corpus 'x'"):
        export_corpus(space, "x", tmp_path / "out", lambda n: None)
    with file_size_limit(2000), pytest.raises(DptrError, match="cannot write"):
        export_corpus(space, "numbers", tmp_path / "out", lambda n: None)
    assert list(tmp_path.iterdir()) == []
