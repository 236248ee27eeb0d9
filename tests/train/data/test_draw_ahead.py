"""Pictures drawn ahead: an LMDB that fine-tuning reads, the same whoever draws it and however often it is stopped."""

import io
from collections import Counter
from functools import partial

import pytest
from PIL import Image
from tqdm import tqdm

import train.data.draw_ahead
from cache.errors import WrongUse
from models.charset import Charset
from sources.drawn.drawn_set import drawn_set
from sources.labelled import labelled
from tests.helpers.drawing import SCENERY, WRITING
from train.data.crops import usable
from train.data.draw_ahead import draw_ahead

WORDS = ["hotel", "cafe", "street", "station"]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(train.data.draw_ahead, "CHUNK", 3)


def crops(words=WORDS, hard=0.0):
    return usable([drawn_set("words", words, WRITING, SCENERY, hard)], Charset(), 25)


def content(folder):
    (one,) = labelled(str(folder))
    return [(label, one.picture(n)) for n, label in enumerate(one.labels)]


def test_pictures_and_labels_are_what_finetune_reads(tmp_path, monkeypatch):
    # as with TQDM_DISABLE=1: a bar that is off counts nothing
    monkeypatch.setattr(train.data.draw_ahead, "tqdm", partial(tqdm, disable=True))
    done = draw_ahead(crops(), tmp_path / "new" / "drawn", 10, (16, 64), 0, 1, print)
    assert (done.count, done.new) == (10, 10)
    pairs = content(tmp_path / "new" / "drawn")
    shown = Counter(label.casefold() for label, _ in pairs)
    assert set(shown) == set(WORDS)
    assert set(shown.values()) == {2, 3}  # each word as often as the others
    for _, data in pairs:
        with Image.open(io.BytesIO(data)) as picture:
            assert (picture.format, picture.size) == ("JPEG", (64, 16))
    assert len({data for _, data in pairs}) == 10


def test_stopped_and_continued_is_the_same(tmp_path, monkeypatch, say):
    draw_ahead(crops(hard=0.5), tmp_path / "whole", 11, (8, 32), 1, 2, print)
    written, calls = train.data.draw_ahead._written, []

    def stopping(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return written(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train.data.draw_ahead, "_written", stopping)
        with pytest.raises(KeyboardInterrupt):
            draw_ahead(crops(hard=0.5), tmp_path / "drawn", 11, (8, 32), 1, 1, print)
    assert not (tmp_path / "drawn").exists()
    with pytest.raises(WrongUse, match=r"drawn.part was begun with other words, fonts, photographs, size or seed"):
        draw_ahead(crops(WORDS[1:], 0.5), tmp_path / "drawn", 11, (8, 32), 1, 1, print)
    done = draw_ahead(crops(hard=0.5), tmp_path / "drawn", 11, (8, 32), 1, 2, say)
    assert done.new == 5
    assert say.lines == ["going on after 6 pictures"]
    assert content(tmp_path / "drawn") == content(tmp_path / "whole")
    assert not (tmp_path / "drawn.part").exists()
