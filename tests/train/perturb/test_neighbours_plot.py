"""The drawing of neighbours shows the thumbnails of the photographs in the table, and of no others."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from cache.errors import DptrError
from cache.space import open_space
from pipeline.embed_images import embed_images
from pipeline.embed_text import embed_text
from pipeline.labels import collect
from pipeline.neighbours import neighbours
from sources.pictures import THUMBNAIL, thumbnail
from tests.helpers.pictures import picture
from train.perturb.neighbours_plot import NAME, draw_neighbours

LEVELS = (0, 64, 128, 192)
COLOURS = [(r, g, b) for r in LEVELS for g in LEVELS for b in LEVELS if max(r, g, b) - min(r, g, b) > 60]  # no grey


def plain(colour):
    file = io.BytesIO()
    Image.new("RGB", (200, 100), colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def cache(encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("neighbours")
    embed_text(folder, encoder, collect([str(n) for n in range(30)]), "numbers", print)
    embed_images(folder, encoder, [(str(c), plain(c)) for c in COLOURS], None, "colours", print)
    return folder


def test_a_thumbnail_is_a_small_jpeg():
    with Image.open(io.BytesIO(thumbnail(plain((10, 200, 30))))) as small:
        assert (small.format, small.size) == ("JPEG", (THUMBNAIL, THUMBNAIL // 2))
        assert np.abs(np.asarray(small, int) - (10, 200, 30)).max() < 4
    with pytest.raises(ValueError, match="it is not a picture"):
        thumbnail(b"hello")
    assert len(thumbnail(picture(0, (2000, 1500)))) < 4000


def test_photographs_of_the_table_are_shown(cache, tmp_path):
    space = open_space(cache)
    with pytest.raises(DptrError, match="'colours' has no table of neighbours: run dptr neighbours CORPUS colours"):
        draw_neighbours(space, "numbers", "colours", tmp_path)
    neighbours(space, "numbers", "colours", 8, print)
    words = draw_neighbours(space, "numbers", "colours", tmp_path)
    labels = space.corpus("numbers").labels()
    assert words == [labels[n] for n in (0, 5, 11, 17, 23, 29)]
    with Image.open(tmp_path / NAME) as page:
        counts = {colour: count for count, colour in page.convert("RGB").getcolors(1 << 24)}
    memories = [space.memory_numbers(space.corpus("numbers"))[labels.index(word)] for word in words]
    shown = set()
    for side in ("near", "far"):
        shown |= set(space.neighbours("colours").read(side, space.memories, space.bank("colours"))[memories, :5].flat)
    assert 5 < len(shown) < len(COLOURS)
    for number, colour in enumerate(COLOURS):
        there = sum(count for c, count in counts.items() if np.abs(np.subtract(c, colour)).max() < 8)
        assert (there > 500) == (number in shown)


def test_banks_of_before_have_none(cache, tmp_path):
    shutil.copytree(cache, tmp_path / "cache")
    bank = open_space(tmp_path / "cache").bank("colours")
    bank.add(["more"], np.array([b"more"], "S16"), bank.features()[:1], "")
    assert bank.thumbnails([0, len(COLOURS)]) == [thumbnail(plain(COLOURS[0])), b""]
    old = open_space(tmp_path / "cache").bank("old")
    old.add([str(n) for n in range(9)], np.array([f"{n}" for n in range(9)], "S16"), bank.features()[:9], "")
    old.write_index()
    neighbours(open_space(tmp_path / "cache"), "numbers", "old", 3, print)
    with pytest.raises(DptrError, match="'old' has no thumbnails: it was made before"):
        draw_neighbours(open_space(tmp_path / "cache"), "numbers", "old", tmp_path)
