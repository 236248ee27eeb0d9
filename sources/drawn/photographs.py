"""Photographs to put behind words."""

import os
from collections.abc import Sequence
from contextlib import closing
from itertools import islice

import numpy as np

from sources.ahead import mapped_ahead
from sources.drawn.render import Picture
from sources.photos import photos
from sources.pictures import decode

SHORTEST = 96  # rows or columns, whichever are fewer, that are kept of each


def photographs(sources: Sequence[str], most: int | None = None) -> list[Picture]:
    """Photographs (H, W, 3) uint8, shorter side SHORTEST pixels; those that cannot be decoded are left out.

    Only the first `most` of each source are read.
    """
    found: list[Picture] = []
    threads = os.cpu_count() or 2
    for source in sources:
        with closing(mapped_ahead(_small, islice(photos(source), most), threads, 2 * threads)) as made:
            found += [picture for picture in made if picture is not None]
    return found


def _small(photograph: tuple[str, bytes]) -> Picture | None:
    try:
        picture = decode(photograph[1])
    except ValueError:
        return None
    scale = SHORTEST / min(picture.size)
    return np.asarray(picture.resize((round(picture.width * scale), round(picture.height * scale))))
