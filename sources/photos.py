"""Where photographs come from: a picture file, a folder, a tar, an LMDB, or `datasets`."""

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cache.errors import DptrError, WrongUse
from sources.hub import load_dataset
from sources.lmdbs import is_lmdb, lmdb_pictures, lmdb_samples

# Files in a folder or a tar that are skipped unread, because they often lie beside pictures. All others are tried.
BESIDE = {".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".md", ".mat", ".html", ".py", ".yaml", ".yml", ".pdf"}
NAMED = {".tar", ".tgz", ".gz", ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}  # cannot be a dataset's name
USUAL = ("image", "img", "picture", "photo", "jpg", "png")  # columns of a dataset that need no --column


def photos(source: str, split: str = "train", column: str | None = None) -> Iterator[tuple[str, bytes]]:
    """(name, encoded bytes) of every picture of one source, in a fixed order; names are relative to the source.

    Pictures are not decoded here. Raises WrongUse for a source that does not exist, DptrError for one that cannot be
    read.
    """
    path = Path(source)
    if is_lmdb(path):
        yield from lmdb_pictures(path)
    elif _is_dataset(path):
        yield from _dataset(source, split, column)
    elif path.is_dir():
        yield from ((p.relative_to(path).as_posix(), _read(p)) for p in _files(path))
    elif path.is_file() and tarfile.is_tarfile(path):
        yield from _tar(path)
    elif path.is_file():
        yield path.name, _read(path)
    elif path.suffix.lower() in NAMED:
        raise WrongUse(f"there is no file or folder {path}.")
    else:
        yield from _dataset(source, split, column)


def photo_count(source: str) -> int | None:
    """How many pictures a source has; None if that is unknown without reading it."""
    path = Path(source)
    if is_lmdb(path):
        return lmdb_samples(path)
    if _is_dataset(path):
        return None
    if path.is_dir():
        return len(_files(path))
    return 1 if path.is_file() and not tarfile.is_tarfile(path) else None


def _is_dataset(path: Path) -> bool:
    """Whether `datasets` reads this file or folder, because it holds Parquet files."""
    return path.suffix == ".parquet" or (path.is_dir() and any(path.rglob("*.parquet")))


def _files(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.rglob("*")) if p.is_file() and _tried(p.name)]


def _tried(name: str) -> bool:
    return not Path(name).name.startswith(".") and Path(name).suffix.lower() not in BESIDE


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # counted with the pictures that cannot be decoded


def _tar(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and _tried(member.name):
                    file = archive.extractfile(member)
                    yield member.name, file.read() if file else b""
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DptrError(f"the archive {path} cannot be read completely: {error}.") from error


def picture_columns(dataset: Any) -> list[str]:
    """The columns of a dataset whose type is a picture."""
    import datasets

    return [n for n, f in (dataset.features or {}).items() if isinstance(f, datasets.Image)]


def picture_of(value: Any) -> bytes:
    """The encoded picture of an undecoded cell {"bytes", "path"}; empty if there is none."""
    value = value or {}
    return value.get("bytes") or (_read(Path(value["path"])) if value.get("path") else b"")


def _dataset(source: str, split: str, column: str | None) -> Iterator[tuple[str, bytes]]:
    import datasets

    dataset = load_dataset(source, split)
    names = picture_columns(dataset) or [n for n in USUAL if n in (dataset.column_names or [])]
    name = column or (names[0] if names else None)
    if name is None or name not in (dataset.column_names or []):
        have = ", ".join(dataset.column_names or [])
        raise WrongUse(f"the dataset '{source}' has the columns {have}: name the one with pictures as --column.")
    for number, row in enumerate(dataset.cast_column(name, datasets.Image(decode=False)).select_columns([name])):
        yield f"{source}/{split}/{number:09d}", picture_of(row[name])
