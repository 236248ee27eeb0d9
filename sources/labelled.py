"""Labelled word images: the field's LMDBs, folders with a labels.tsv, and `datasets`.

All labels are read immediately. A picture is fetched when it is asked for, in any order and from any process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.errors import DptrError, WrongUse
from sources.hub import load_dataset
from sources.lmdbs import is_lmdb, lmdb_key, lmdb_labels, lmdb_picture
from sources.photos import USUAL as PICTURES
from sources.photos import picture_columns, picture_of
from sources.words import USUAL as LABELS

LABELS_FILE = "labels.tsv"  # lines of: file TAB label; files relative to the folder


@dataclass(frozen=True)
class Labelled:
    """One set of word images. `picture(n)` is the encoded picture of labels[n], empty if there is none.

    `key(n)` is what the source calls it: a file, an LMDB's key, or else its number.
    """

    name: str
    labels: list[str]
    picture: Callable[[int], bytes]
    key: Callable[[int], str] = str

    def __len__(self) -> int:
        return len(self.labels)


def labelled(source: str, split: str = "train") -> list[Labelled]:
    """The sets of a source: one, or every LMDB anywhere below a folder, named by its path.

    Raises WrongUse for a source that does not exist or is of an unknown kind, DptrError for one that cannot be read.
    """
    path = Path(source)
    if is_lmdb(path):
        return [_lmdb(path, path.name)]
    if (path / LABELS_FILE).is_file():
        return [_folder(path)]
    below = sorted(p.parent for p in path.rglob("data.mdb")) if path.is_dir() else []
    if below:
        return [_lmdb(p, p.relative_to(path).as_posix()) for p in below]
    if path.is_dir() and not any(path.rglob("*.parquet")):
        raise WrongUse(f"{path} holds no word images: use an LMDB, a folder of LMDBs, or one with a {LABELS_FILE}.")
    if path.is_file() and path.suffix != ".parquet":
        raise WrongUse(f"{path} holds no word images: use an LMDB, a folder with a {LABELS_FILE}, or a dataset.")
    return [_dataset(source, split)]


def _lmdb(path: Path, name: str) -> Labelled:
    labels = list(lmdb_labels(path))
    if not labels:
        raise DptrError(f"the LMDB {path} says that it has no samples (num-samples): it is not one of word images.")
    return Labelled(name, labels, lambda n: lmdb_picture(path, n + 1), lambda n: lmdb_key(n + 1))


def _folder(path: Path) -> Labelled:
    names, labels = [], []
    file = path / LABELS_FILE
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DptrError(f"{file} cannot be read as UTF-8: {error}.") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            name, tab, label = line.partition("\t")
            if not tab:
                raise DptrError(f"{file} line {number} has no tab: each line is a file, a tab, and its label.")
            names.append(name)
            labels.append(label)

    def picture(n: int) -> bytes:
        try:
            return (path / names[n]).read_bytes()
        except OSError:
            return b""

    return Labelled(path.name, labels, picture, names.__getitem__)


def _dataset(source: str, split: str) -> Labelled:
    table = load_dataset(source, split, streaming=False)
    image = next(iter(picture_columns(table)), None) or next((n for n in PICTURES if n in table.column_names), None)
    label = next((n for n in LABELS if n in table.column_names), None)
    if image is None or label is None:
        raise WrongUse(
            f"the dataset '{source}' has the columns {', '.join(table.column_names)}: word images need one of "
            f"{', '.join(PICTURES)} and one of {', '.join(LABELS)}."
        )
    encoded = _undecoded(table, image)
    return Labelled(source, [str(text or "") for text in table[label]], lambda n: picture_of(encoded[n][image]))


def _undecoded(table: Any, column: str) -> Any:
    import datasets

    return table.cast_column(column, datasets.Image(decode=False)).select_columns([column])
