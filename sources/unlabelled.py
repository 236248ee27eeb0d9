"""Word images without labels: an LMDB, a folder of pictures or LMDBs, a list, a dataset. Labels are not looked at."""

from collections.abc import Callable
from pathlib import Path

from cache.errors import WrongUse
from sources.files import files_below, read_picture
from sources.hub import load_dataset
from sources.label_files import ENDINGS, labelled_files
from sources.labelled import Labelled, undecoded
from sources.lmdbs import is_lmdb, lmdb_key, lmdb_picture, lmdb_samples
from sources.missing import UNLABELLED, NoText
from sources.photos import USUAL, is_dataset, picture_columns, picture_of, tried


def unlabelled(source: str, split: str = "train") -> list[Labelled]:
    """The sets of a source, every label NoText: one, or for a folder its pictures, and each LMDB anywhere below it.

    Raises WrongUse for a source that does not exist or has no pictures, DptrError for one that cannot be read.
    """
    path = Path(source)
    found: list[Labelled] = []
    if is_lmdb(path):
        found = [_lmdb(path, path.name)]
    elif path.is_file() and path.suffix.lower() in ENDINGS:
        paths, names, _ = labelled_files(path)
        found = [_set(path.stem, len(paths), lambda n: read_picture(paths[n]), names.__getitem__)]
    elif path.is_dir() and not is_dataset(files := files_below(path)):
        pictures = [file for file in tried(files) if file.name != "data.mdb"]
        lmdbs = [file.parent for file in files if file.name == "data.mdb"]
        found = [_lmdb(one, one.relative_to(path).as_posix()) for one in lmdbs]
        found.append(
            _set(
                path.name,
                len(pictures),
                lambda n: read_picture(pictures[n]),
                lambda n: pictures[n].relative_to(path).as_posix(),
            )
        )
    elif not path.is_file() or path.suffix == ".parquet":
        found = [_dataset(source, split)]
    if not any(map(len, found)):
        raise WrongUse(f"{source} holds no pictures: name an LMDB, a folder of pictures or of LMDBs, or a dataset.")
    return [one for one in found if len(one)]


def _set(
    name: str, count: int, picture: Callable[[int], bytes], key: Callable[[int], str] = str, missing: int = 0
) -> Labelled:
    return Labelled(name, [NoText(UNLABELLED)] * count, picture, key, missing)


def _lmdb(path: Path, name: str) -> Labelled:
    there, missing = lmdb_samples(path)
    return _set(name, len(there), lambda n: lmdb_picture(path, there[n]), lambda n: lmdb_key(there[n]), missing)


def _dataset(source: str, split: str) -> Labelled:
    table = load_dataset(source, split, streaming=False)
    image = next(iter(picture_columns(table)), None) or next((n for n in USUAL if n in table.column_names), None)
    if image is None:
        raise WrongUse(
            f"the dataset '{source}' has the columns {', '.join(table.column_names)}: pictures need one of "
            f"{', '.join(USUAL)}."
        )
    encoded = undecoded(table, image)
    return _set(source, len(encoded), lambda n: picture_of(encoded[n][image]))
