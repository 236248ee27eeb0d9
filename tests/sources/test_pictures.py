"""The one decoder of pictures: what it makes of every kind of file, and that every path gets its pixels from it."""

import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from cache.space import open_space
from models.charset import Charset
from models.image_encoder import stretched
from models.recogniser import Recogniser
from pipeline.embed_crops import WordTower, embed_crops
from pipeline.embed_text import embed_text
from pipeline.labels import collect
from sources import pictures
from sources.labelled import Labelled
from sources.missing import NoPicture
from sources.pictures import decode
from tests.helpers.pictures import picture
from tests.train.reading.test_read import save, tiny
from train.data.crop_batches import CachedTokens, Pictures
from train.data.crops import usable
from train.reading.batched import read_crops
from train.reading.read import read

SIZE = (16, 64)
# How a camera that was held askew stores the picture, by the number it then writes into EXIF (tag 274).
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def encoded(shown, kind="PNG", **options):
    file = io.BytesIO()
    shown.save(file, kind, **options)
    return file.getvalue()


def turned(number):
    exif = Image.Exif()
    exif[274] = number
    return exif


def plainly(data):
    """The pixels (H, W, 3) as Pillow alone gives them."""
    with Image.open(io.BytesIO(data)) as opened:
        return np.asarray(opened.convert("RGB"))


def kinds():
    """By name: a picture's bytes, and the pixels (H, W, 3) that a viewer shows."""
    random = np.random.default_rng(0)
    shown = random.integers(0, 256, (20, 50, 3), np.uint8)
    alpha = np.where(random.random((20, 50)) < 0.5, 0, 255).astype(np.uint8)
    over_white = np.where(alpha[..., None] > 0, shown, 255)
    lying = encoded(Image.fromarray(shown).rotate(90, expand=True), "JPEG", exif=turned(6))
    grey = shown[..., 0]
    few = Image.fromarray(shown).quantize(8)
    clear = np.where(np.asarray(few)[..., None] == 3, 255, np.asarray(few.convert("RGB")))
    cmyk = encoded(Image.fromarray(shown).convert("CMYK"), "JPEG", quality=95)
    sign = Image.new("RGB", (2400, 700), (40, 90, 160))
    ImageDraw.Draw(sign).text((200, 50), "STATION", (240, 230, 90), ImageFont.load_default(450))
    large = encoded(sign, "JPEG", quality=90)
    return {
        "rotated JPEG": (lying, np.rot90(plainly(lying), -1)),
        "transparent PNG": (encoded(Image.fromarray(np.dstack([shown, alpha]))), over_white),
        "16-bit PNG": (encoded(Image.fromarray(grey.astype(np.uint16) * 257)), np.dstack([grey] * 3)),
        "palette PNG": (encoded(few), np.asarray(few.convert("RGB"))),
        "transparent palette PNG": (encoded(few, transparency=3), clear),
        "CMYK JPEG": (cmyk, plainly(cmyk)),
        "large JPEG": (large, plainly(large)),
    }


KINDS = kinds()
every = pytest.mark.parametrize("kind", KINDS)


@every
def test_a_viewer_shows_the_same(kind):
    data, shown = KINDS[kind]
    assert np.array_equal(np.asarray(decode(data)), shown)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save(tmp_path_factory.mktemp("runs") / "run", tiny())


@every
def test_every_path_sees_the_same_pixels(kind, encoder, run, tmp_path, monkeypatch):
    data, shown = KINDS[kind]
    expected = stretched(Image.fromarray(shown), SIZE)
    crops = usable([Labelled("set", ["a"], lambda n: data)], Charset(), 8)
    assert torch.equal(Pictures(crops, SIZE)[0, [0]].pictures[0], expected)  # training
    tower = tiny().encoder
    assert torch.equal(WordTower(tower, torch.device("cpu"), "fp32").pixels(data), expected)  # freezing
    seen, memory = [], Recogniser.memory
    monkeypatch.setattr(Recogniser, "memory", lambda self, x: seen.append(x) or memory(self, x))
    (evaluated,), _ = read_crops(tiny(), crops, torch.device("cpu"), "fp32", 0)
    (tmp_path / "a").write_bytes(data)
    (reading,) = read(run, [str(tmp_path / "a")], "cpu")
    assert len(seen) == 2
    assert all(torch.equal(pixels[0], expected) for pixels in seen)
    assert reading.text == evaluated.text
    found, photograph = encoder.pixels(data).float(), encoder.preprocess(Image.fromarray(shown)).float()
    if kind == "large JPEG":  # photographs come at a smaller scale
        assert photograph.std() > 20
        assert (found - photograph).abs().mean() < 3
    else:
        assert torch.equal(found, photograph)


def test_frozen_tokens_are_those_of_the_same_pixels(encoder, tmp_path, say):
    embed_text(tmp_path, encoder, collect(["a"]), "one", say)
    space, tower = open_space(tmp_path), tiny().encoder
    named = [(kind, data) for kind, (data, _) in KINDS.items()]
    bank = embed_crops(space, tower, torch.device("cpu"), named, len(named), say)
    crops = usable([Labelled("set", ["a"] * len(named), lambda n: named[n][1])], Charset(), 8)
    (batch,) = CachedTokens(bank).batches(crops, [range(len(named))])
    pixels = torch.stack([stretched(Image.fromarray(shown), SIZE) for _, shown in KINDS.values()])
    with torch.no_grad():
        assert (batch.pictures - tower(tower.normalised(pixels))).abs().max() < 4e-3  # which is float16's


@pytest.mark.parametrize("number", TURNS)
@pytest.mark.parametrize("mode", ["RGB", "I;16"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_turned_as_exif_says(number, mode, kind):
    right = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    shown = Image.fromarray(right.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(right).convert(mode)
    found = decode(encoded(shown.transpose(TURNS[number]), kind, exif=turned(number)))
    assert found.mode == "RGB"
    assert np.array_equal(np.asarray(found)[..., 1], right)


def test_a_jpeg_comes_at_the_least_scale_of_its_upright_sides():
    y, x = np.mgrid[:400, :1200]
    smooth = Image.fromarray((np.sin(x / 60) * np.cos(y / 50) * 100 + 128).astype(np.uint8)).convert("RGB")
    plain = encoded(smooth, "JPEG", quality=95)
    for number, turn in TURNS.items():
        data = encoded(smooth.transpose(turn), "JPEG", quality=95, exif=turned(number))
        for least in ((300, 100), (150, 200), (300, 101), (601, 201)):
            found = decode(data, least)
            assert found.size == decode(plain, least).size
            assert found.width >= least[0]
            assert found.height >= least[1]
            assert np.abs(np.asarray(found, int) - np.asarray(decode(plain, least), int)).max() < 12
    assert decode(plain, (300, 100)).size == (300, 100)


def test_exif_that_is_damaged_does_not_matter():
    shown = Image.new("RGB", (6, 4), "red")
    for exif in (b"Exif\0\0MM\0*\0\0\xff\xff" + b"\xff" * 9, b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01", b"Exif\0\0x"):
        assert decode(encoded(shown, exif=exif)).getpixel((0, 0)) == (255, 0, 0)
        assert decode(encoded(shown, "JPEG", exif=exif), (6, 4)).size == (6, 4)


def test_what_is_transparent_lies_over_white():
    shown = Image.new("RGBA", (2, 1), (10, 20, 30, 255))
    shown.putpixel((1, 0), (0, 0, 0, 51))
    found = decode(encoded(shown))
    assert [found.getpixel((x, 0)) for x in (0, 1)] == [(10, 20, 30), (204, 204, 204)]
    assert decode(encoded(Image.new("LA", (2, 1), (0, 0)))).getpixel((0, 0)) == (255, 255, 255)
    assert decode(encoded(Image.new("1", (2, 1), 1))).getpixel((0, 0)) == (255, 255, 255)
    for seen in (Image.new("L", (2, 1), 7), Image.fromarray(np.full((1, 2), 7, np.uint16))):  # one value is transparent
        seen.putpixel((1, 0), 255)
        assert decode(encoded(seen, transparency=255)).getpixel((0, 0)) != (255, 255, 255)
        assert decode(encoded(seen, transparency=7)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("kind", "type_", "most"),
    [("PNG", np.uint16, 65535), ("TIFF", np.int32, 65535), ("TIFF", np.int32, 255), ("TIFF", np.float32, 1)],
)
@pytest.mark.parametrize("brightest", [255, 200])
def test_deep_pictures_keep_their_shades(kind, type_, most, brightest):
    ramp = np.arange(brightest + 1)
    found = np.asarray(decode(encoded(Image.fromarray((ramp / 255 * most).astype(type_)[None]), kind)))
    assert np.array_equal(found, ramp[None, :, None].repeat(3, 2))


def test_floats_that_are_no_numbers_are_drawn():
    wild = Image.fromarray(np.array([[np.nan, np.inf, -np.inf, 3e38, -3e38, 0]], np.float32))
    found = np.asarray(decode(encoded(wild, "TIFF")))[0, :, 0]
    assert found.tolist() == [128, 128, 128, 255, 0, 128]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (NoPicture("there is no such file"), "there is no such file"),
        (b"hello", "it is not a picture"),
        (encoded(Image.new("RGB", (5, 4)), "EPS"), "it is not a picture"),  # opening it would start Ghostscript
        (picture(1)[:300], "it is damaged"),
        (picture(1, (400, 400), "JPEG")[:3000], "it is damaged"),
        (b"\xff\xd8\xff", "it is damaged"),
    ],
)
def test_what_cannot_be_decoded_says_why(data, reason):
    with pytest.raises(ValueError, match=reason):
        decode(data)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "YCbCr", "LAB", "PA", "I", "F"])
def test_any_mode_becomes_rgb(mode):
    assert decode(encoded(Image.new(mode, (5, 4)), "TIFF")).mode == "RGB"


def test_a_long_comment_is_no_damage():
    comment = PngImagePlugin.PngInfo()
    comment.add_text("history", "blurred, " * 500_000, zip=True)
    assert decode(encoded(Image.new("L", (6, 4)), pnginfo=comment)).size == (6, 4)


def test_pillow_warns_of_nothing(monkeypatch):
    """It would warn of these, and warnings are errors here."""
    torn = b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12"
    data = encoded(Image.new("RGB", (20, 10)), "JPEG", exif=torn)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with Image.open(io.BytesIO(data)) as opened:
            opened.getexif()
    assert {type(one.message) for one in said} == {Image.DecompressionBombWarning, UserWarning}
    assert decode(data).size == decode(encoded(Image.new("L", (20, 10)))).size == (20, 10)


def test_pictures_beyond_all_measure_are_refused(monkeypatch):
    monkeypatch.setattr(pictures, "PIXELS", 100)
    for kind in ("PNG", "JPEG"):
        with pytest.raises(ValueError, match="it has too many pixels"):
            decode(picture(1, kind=kind))  # 40 x 48
    assert decode(picture(1, kind="JPEG"), (5, 6)).size == (5, 6)
    with pytest.raises(ValueError, match="it has too many pixels"):
        decode(encoded(Image.new("L", (40, 48)), "JPEG", progressive=True), (5, 6))  # is kept whole while it shrinks


def test_a_small_file_of_many_pixels_is_refused_before_it_is_decoded():
    data = encoded(Image.new("1", (13000, 13000)))
    assert len(data) < 40_000
    with pytest.raises(ValueError, match="it has too many pixels"):
        decode(data, (224, 224))


def test_a_photograph_of_200_megapixels_comes_at_an_eighth():
    data = encoded(Image.new("L", (16320, 12288), 90), "JPEG", exif=turned(6))
    assert decode(data, (224, 224)).size == (1536, 2040)
    with pytest.raises(ValueError, match="it has too many pixels"):
        decode(data)
