"""What tests draw with: Pillow's own font, also as a file, and a photograph of noise."""

import numpy as np
from PIL import ImageFont

from sources.drawn.drawn_set import Scenery, Writing
from sources.drawn.fonts import PILLOWS

SCENERY = Scenery([PILLOWS], [np.random.default_rng(0).integers(0, 256, (96, 120, 3), np.uint8)])
WRITING = Writing("".join(map(chr, range(33, 127))), 25)


def font_folder(folder):
    """A folder with fonts/Aileron.ttf, and a file that is no font."""
    (folder / "fonts").mkdir()
    (folder / "fonts" / "Aileron.ttf").write_bytes(ImageFont.load_default(20).font_bytes)
    (folder / "fonts" / "broken.ttf").write_bytes(b"no font")
    return folder / "fonts"
