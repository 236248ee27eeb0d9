"""The demo runs the whole chain; with few steps it prints the same tables, with more misspelled words."""

import re
from itertools import islice

import pytest
from PIL import Image

from cache.errors import WrongUse
from commands.demo import demo
from pipeline.labels import collect
from sources.pictures import decode
from sources.signs import photographs, signs


def test_demo_ends_with_held_out_words_and_their_spelling(tmp_path, say, monkeypatch):
    monkeypatch.setattr("commands.demo.DRAWN", 12)
    monkeypatch.setattr("commands.demo.photographs", lambda: islice(photographs(), 4))
    monkeypatch.setattr("commands.demo.signs", lambda: islice(signs(), 0, None, 24))
    text = demo(tmp_path / "demo-out", say, steps=3)
    assert "held-out word" in text
    assert not any("UNTRAINED" in line for line in say.lines)
    assert re.search(r"^drawn words +12 ", text, re.M)
    with Image.open(tmp_path / "demo-out" / "pictures.png") as page:
        assert page.width == 8 * 136
    monkeypatch.setattr("commands.demo.signs", lambda: islice(signs(), 0, None, 60))
    again = demo(tmp_path / "demo-out", say, steps=2)  # made anew
    assert "(step 2)" in again


def test_material_is_there():
    labels = collect(signs())
    assert 7000 < len(labels) < 9000
    assert not labels.dropped
    pictures = list(photographs())
    assert len(pictures) >= 12
    assert all(decode(data).width >= 200 for _, data in pictures)


def test_demo_deletes_nothing_that_is_not_its_own(tmp_path, say):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(WrongUse, match="choose another --out"):
        demo(tmp_path, say)
    assert (tmp_path / "thesis.tex").exists()
