"""The demo runs the whole chain; with few steps it shows the same things, less well spelled."""

import pytest

from cache.errors import WrongUse
from demo import demo, photographs, signs
from pipeline.labels import collect
from pipeline.photos import decode


def test_demo_ends_with_held_out_words_and_their_spelling(tmp_path, say):
    text = demo(tmp_path / "demo-out", say, steps=60)
    assert "held-out word" in text
    assert "UNTRAINED" in text
    assert any("UNTRAINED" in line for line in say.lines)
    again = demo(tmp_path / "demo-out", say, steps=2)  # made anew
    assert "(step 2)" in again


def test_material_is_there():
    labels = collect(signs())
    assert 3000 < len(labels.counts) < 5000
    assert not labels.dropped
    pictures = list(photographs())
    assert len(pictures) >= 12
    assert all(decode(data).width >= 200 for _, data in pictures)


def test_demo_deletes_nothing_that_is_not_its_own(tmp_path, say):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(WrongUse, match="choose another --out"):
        demo(tmp_path, say)
    assert (tmp_path / "thesis.tex").exists()
