"""What the benches measure with, if they are given no data: words, photographs, drawn crops."""

import io
from collections.abc import Iterable, Iterator
from itertools import cycle, islice
from random import Random

from PIL import Image, ImageDraw, ImageFont

from pipeline.labels import collect
from sources.labelled import Labelled
from sources.photos import photos
from sources.signs import photographs, signs
from sources.words import Reading, words


def some_words(source: str | None, count: int | None) -> list[str]:
    """`count` distinct labels (None: all), spread evenly over a word list or the demo's words.

    If there are fewer, random pairs of at most 12 characters make up the rest.
    """
    labels = [label for label, _ in collect(words(source, Reading()) if source else signs())]
    if count is None:
        return labels
    if count <= len(labels):
        return labels[:: max(1, len(labels) // count)][:count]
    random, found = Random(0), dict.fromkeys(labels)
    while len(found) < count:
        pair = random.choice(labels) + random.choice(labels)
        if len(pair) <= 12:
            found[pair] = None
    return list(found)


def some_photographs(source: str | None, count: int) -> list[tuple[str, bytes]]:
    """`count` photographs (name, encoded bytes). The demo's are repeated, each time as a file of other bytes."""
    if source:
        return list(islice(photos(source), count))
    repeated: Iterable[tuple[int, tuple[str, bytes]]] = enumerate(islice(cycle(list(photographs())), count))
    return [(f"{n}-{name}", data + n.to_bytes(4, "big")) for n, (name, data) in repeated]


def drawn_crops(labels: list[str]) -> Labelled:
    """Crops of 32 x 128, one for each label, drawn in Pillow's own font and kept as JPEG."""
    encoded = list(_drawn(labels))
    return Labelled("drawn", labels, encoded.__getitem__)


def _drawn(labels: list[str]) -> Iterator[bytes]:
    for n, label in enumerate(labels):
        crop = Image.new("RGB", (128, 32), (250, 240 - n % 60, 200))
        ImageDraw.Draw(crop).text((4, 6), label, "black", font=ImageFont.load_default(16))
        file = io.BytesIO()
        crop.save(file, "JPEG", quality=90)
        yield file.getvalue()
