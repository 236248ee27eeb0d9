"""An encoder, a font file, a list of words and crops to work with, none of which needs the network."""

import io

import lmdb
import pytest
from PIL import Image, ImageFont

from pipeline.encoder import Encoder

WORDS = "street hotel coffee market station library garden bakery museum theatre school office chair"


@pytest.fixture(scope="session")
def material(tmp_path_factory):
    """A folder with fonts/Aileron.ttf (Pillow's own), words.txt, photos/ and the LMDB crops/."""
    folder = tmp_path_factory.mktemp("material")
    (folder / "fonts").mkdir()
    (folder / "fonts" / "Aileron.ttf").write_bytes(ImageFont.load_default(20).font_bytes)
    (folder / "fonts" / "broken.ttf").write_bytes(b"no font")
    (folder / "words.txt").write_text("\n".join(WORDS.split()))
    (folder / "photos").mkdir()
    for n in range(3):
        Image.radial_gradient("L").convert("RGB").rotate(60 * n).save(folder / "photos" / f"{n}.png")
    (folder / "photos" / "broken.jpg").write_bytes(b"no picture")
    with lmdb.open(str(folder / "crops"), map_size=1 << 24) as environment, environment.begin(write=True) as entries:
        for n, word in enumerate(WORDS.split(), 1):
            packed = io.BytesIO()
            Image.new("RGB", (60 + n, 20), (n, 2 * n, 3 * n)).save(packed, "PNG")
            entries.put(b"image-%09d" % n, packed.getvalue() if n > 1 else b"broken")
            entries.put(b"label-%09d" % n, f"{word[:3]} {word[3:]}".encode())
        entries.put(b"num-samples", str(len(WORDS.split())).encode())
    return folder


@pytest.fixture(scope="session")
def word_encoder():
    """Not to be trained."""
    return Encoder("wordclip2", "untrained:3", precision="fp32", device="cpu")


@pytest.fixture(scope="session")
def tokens(word_encoder):
    return word_encoder.prompt.tokens
