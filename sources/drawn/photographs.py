"""Photographs to put behind words."""

from collections.abc import Sequence

import numpy as np

from sources.drawn.render import Picture
from sources.photos import photos
from sources.pictures import decode


def photographs(sources: Sequence[str], shortest: int = 96) -> list[Picture]:
    """Photographs (H, W, 3) uint8, shorter side `shortest` pixels; those that cannot be decoded are left out."""
    found = []
    for source in sources:
        for _, data in photos(source):
            try:
                picture = decode(data)
            except ValueError:
                continue
            scale = shortest / min(picture.size)
            found.append(np.asarray(picture.resize((round(picture.width * scale), round(picture.height * scale)))))
    return found
