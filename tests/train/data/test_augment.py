"""Changes to pictures: none at strength 0, the same for the same draw, and the word stays in the picture."""

import random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from train.data.augment import _moved, augmented


def striped(width=120, height=40):
    """White with a black block in the middle, where the word would be."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[height // 4 : -height // 4, width // 8 : -width // 8] = 0
    return Image.fromarray(pixels)


def test_strength_zero_changes_nothing():
    picture = striped()
    assert augmented(picture, 0.0, random.Random(0)) is picture


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0, 5.0])
def test_any_shape_comes_out_as_a_picture(strength):
    rng = random.Random(1)
    for size in ((1, 1), (3, 40), (200, 8), (400, 300), (31, 33)):
        for _ in range(30 if strength < 5 else 8):  # wild blurs take long
            made = augmented(Image.new("RGB", size, "white"), strength, rng)
            assert made.mode == "RGB"
            assert min(made.size) >= 1


SIDE = st.one_of(st.integers(1, 40), st.integers(1, 5000), st.sampled_from([1, 96, 97, 5000]))


@settings(max_examples=60, deadline=None)
@given(SIDE, SIDE, st.sampled_from([0.5, 1.0, 2.0]), st.integers(0, 2**32))
@example(24, 400, 1.0, 0)
@example(5000, 1, 2.0, 3)
@example(1, 5000, 2.0, 3)
@example(5000, 5000, 2.0, 3)
def test_no_draw_fails_whatever_the_size(width, height, strength, seed):
    rng, picture = random.Random(seed), Image.new("RGB", (width, height), "white")
    for _ in range(5 if width * height <= 1_000_000 else 1):  # shrinking takes a tenth of a second
        made = augmented(picture, strength, rng)
        assert min(made.size) >= 1
        assert made.width * made.height < 2_000_000  # turned, a line would take a hundred times its memory


@pytest.mark.parametrize(("size", "seed"), [((24, 400), 124), ((30, 400), 370), ((2, 40), 88)])
def test_tall_crops_never_shrink_to_nothing(size, seed):
    """These draws ended training: what was cut off at the sides was a share of the height."""
    assert min(_moved(Image.new("RGB", size, "white"), 1.0, random.Random(seed)).size) >= 1


def test_same_draw_gives_the_same_picture():
    first, second = (augmented(striped(), 1.0, random.Random(n)) for n in (3, 3))
    assert first.tobytes() == second.tobytes()
    assert len({augmented(striped(), 1.0, random.Random(n)).tobytes() for n in range(20)}) > 10


def test_each_kind_of_change_happens():
    shapes, colours, noise = set(), 0, 0
    for n in range(200):
        made = augmented(striped(), 1.0, random.Random(n))
        pixels = np.asarray(made).astype(int)
        shapes.add(made.size)
        colours += int(pixels[0, 0].sum() < 300)  # the border turned dark: inverted
        noise += int(len(np.unique(pixels)) > 200)
    assert len(shapes) > 20  # moved
    assert 5 < colours < 60
    assert noise > 10


def test_nothing_of_the_word_is_cut_off():
    """However the picture is turned, its share of black stays about the same; colours are left alone."""
    for n in range(300):
        made = np.asarray(_moved(striped(), 1.0, random.Random(n)))[:, :, 0]
        black = (made < 128).sum() / (40 * 120)
        assert 0.25 < black < 0.6, n  # 0.375 before; perspective brings it nearer or moves it away
        assert (made[0] >= 128).mean() > 0.9  # what came in at the border is border
