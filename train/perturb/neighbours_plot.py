"""Shows the photographs nearest to and farthest from a few words, as thumbnails: part of `dptr cache plot`."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from cache.errors import DptrError
from cache.neighbours import ABSENT
from cache.space import Space

WORDS, SHOWN = 6, 5  # rows, and photographs on each side
NAME = "neighbours.png"


def draw_neighbours(space: Space, corpus: str, bank: str, folder: Path) -> list[str]:
    """Draw WORDS words, evenly spread over the corpus, each with its photographs; returns them.

    DptrError if there is no table of neighbours for these photographs, no word of the corpus is in it, or the bank has
    no thumbnails.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found, words = space.existing_bank(bank), space.existing_corpus(corpus)
    near, far = (space.neighbours(bank).read(side, space.memories, found) for side in ("near", "far"))
    memories = space.memory_numbers(words)
    known = np.flatnonzero(near[memories, 0] != ABSENT)
    if not len(known):
        raise DptrError(f"no word of '{corpus}' is in the table: run dptr neighbours {corpus} {bank}.")
    chosen = known[np.linspace(0, len(known) - 1, min(WORDS, len(known))).astype(int)]
    labels = words.labels()
    columns = min(SHOWN, near.shape[1])
    numbers = np.concatenate([near[memories[chosen], :columns], far[memories[chosen], :columns]], 1)
    thumbnails = iter(found.thumbnails(numbers.flatten().tolist()))
    figure, axes = pyplot.subplots(
        len(chosen), 2 * columns, figsize=(2.2 * columns, 1.2 * len(chosen)), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.set_axis_off()
        if not (data := next(thumbnails)):
            pyplot.close(figure)
            raise DptrError(f"bank '{bank}' has no thumbnails: it was made before they were kept.")
        axis.imshow(Image.open(io.BytesIO(data)))
    for row, word in zip(axes, chosen.tolist(), strict=True):
        row[0].set_title(labels[word], fontsize=9, loc="left", parse_math=False)
        row[columns].set_title("farthest from it", fontsize=7, loc="left", color="#718096")
    figure.suptitle(f"photographs nearest to each word, and the {columns} farthest", fontsize=9)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / NAME, dpi=130)
    pyplot.close(figure)
    return [labels[word] for word in chosen.tolist()]
