"""Labelled word images: the field's LMDBs, lists of pictures with their labels, and `datasets`.

All labels are read immediately. A picture is fetched when it is asked for, in any order and from any process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import DptrError, WrongUse
from sources.files import files_below, read_picture
from sources.hub import load_dataset
from sources.label_files import ENDINGS, USUAL_LISTS, labelled_files, list_in
from sources.lmdbs import is_lmdb, lmdb_key, lmdb_labels, lmdb_picture, lmdb_samples
from sources.missing import UNLABELLED, NoText
from sources.photos import USUAL as PICTURES
from sources.photos import picture_columns, picture_of
from sources.tables import USUAL as LABELS

# from a number, a source of chance and (rows, columns) to a picture (rows, columns, 3) uint8 and what it says
Draw = Callable[[int, Random, tuple[int, int]], tuple[NDArray[np.uint8], str]]


@dataclass(frozen=True)
class Labelled:
    """One set of word images. `picture(n)` is the encoded picture of labels[n], empty or NoPicture if there is none.

    `key(n)` is what the source calls it: a file, an LMDB's key, or else its number. A label that cannot be read is
    NoText. `missing` counts those that an LMDB says it has and has not.

    Of a set that is drawn, `draw(n, rng, size)` is a new picture for labels[n] each time, and what it says, which is
    not always that label; `drawn_from` is a hash of all that it is drawn from.
    """

    name: str
    labels: list[str]
    picture: Callable[[int], bytes]
    key: Callable[[int], str] = str
    missing: int = 0
    draw: Draw | None = None
    drawn_from: str = ""

    def __len__(self) -> int:
        return len(self.labels)


def labelled(source: str, split: str = "train") -> list[Labelled]:
    """The sets of a source: one, or every LMDB and list of pictures anywhere below a folder, named by its path.

    Raises WrongUse for a source that does not exist or is of an unknown kind, DptrError for one that cannot be read.
    """
    path = Path(source)
    if is_lmdb(path):
        return [_lmdb(path, path.name)]
    if path.is_file() and path.suffix.lower() in ENDINGS:
        return [_listed(path, path.stem)]
    if path.is_dir():
        if listed := list_in(path) or list_in(path / split):
            return [_listed(listed, path.name)]
        if below := _below(path):
            return below
        if not any(file.suffix == ".parquet" for file in files_below(path)):
            lists = [file.name for file in sorted(path.iterdir()) if file.suffix.lower() in ENDINGS]
            hint = f"name its list of labels, such as {path / lists[0]}" if lists else "use an LMDB, a folder of them"
            raise WrongUse(f"{path} holds no word images: {hint}, or a folder with one called {USUAL_LISTS[0]}.")
    elif path.exists() and path.suffix != ".parquet":
        raise WrongUse(f"{path} holds no word images: use an LMDB, a list of pictures with labels, or a dataset.")
    return [_dataset(source, split)]


def _below(folder: Path) -> list[Labelled]:
    """The LMDBs anywhere below a folder, or else the lists."""
    places = sorted({file.parent for file in files_below(folder)})
    named = {place: place.relative_to(folder).as_posix() for place in places}
    return [_lmdb(place, name) for place, name in named.items() if is_lmdb(place)] or [
        _listed(file, name) for place, name in named.items() if (file := list_in(place))
    ]


def _lmdb(path: Path, name: str) -> Labelled:
    there, missing = lmdb_samples(path)
    if not there:
        raise DptrError(f"the LMDB {path} has no samples (num-samples, image-000000001): it is not one of word images.")
    picture, key = (lambda n: lmdb_picture(path, there[n])), (lambda n: lmdb_key(there[n]))
    return Labelled(name, list(lmdb_labels(path)), picture, key, missing=missing)


def _listed(file: Path, name: str) -> Labelled:
    paths, names, labels = labelled_files(file)
    return Labelled(name, labels, lambda n: read_picture(paths[n]), names.__getitem__)


def _dataset(source: str, split: str) -> Labelled:
    table = load_dataset(source, split, streaming=False)
    image = next(iter(picture_columns(table)), None) or next((n for n in PICTURES if n in table.column_names), None)
    label = next((n for n in LABELS if n in table.column_names), None)
    if image is None or label is None:
        raise WrongUse(
            f"the dataset '{source}' has the columns {', '.join(table.column_names)}: word images need one of "
            f"{', '.join(PICTURES)} and one of {', '.join(LABELS)}."
        )
    encoded = undecoded(table, image)
    labels = [NoText(UNLABELLED) if text is None else str(text) for text in table[label]]
    return Labelled(source, labels, lambda n: picture_of(encoded[n][image]))


def undecoded(table: Any, column: str) -> Any:
    """A column of encoded pictures of a dataset, for `picture_of`."""
    import datasets

    return table.cast_column(column, datasets.Image(decode=False)).select_columns([column])
