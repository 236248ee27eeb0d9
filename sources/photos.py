"""Where photographs come from: a picture file, a folder, a tar, an LMDB, or `datasets`."""

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cache.errors import DptrError, WrongUse
from sources.files import LARGEST, TOO_LARGE, files_below, read_picture
from sources.hub import load_dataset
from sources.lmdbs import is_lmdb, lmdb_pictures, lmdb_samples
from sources.missing import NoPicture

# Files in a folder or a tar that are skipped unread, because they often lie beside pictures. All others are tried.
BESIDE = {".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".md", ".mat", ".html", ".py", ".yaml", ".yml", ".pdf"}
BESIDE |= {".parquet"}
ARCHIVES = {".tar", ".tgz", ".gz"}
NAMED = {*ARCHIVES, ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}  # cannot be a dataset's name
USUAL = ("image", "img", "picture", "photo", "jpg", "png")  # columns of a dataset that need no --column


def photos(source: str, split: str = "train", column: str | None = None) -> Iterator[tuple[str, bytes]]:
    """(name, encoded bytes) of every picture of one source, in a fixed order; names are relative to the source.

    Pictures are not decoded here; one that cannot be read is NoPicture, and so is the rest of an archive that is cut.
    Raises WrongUse for a source that does not exist, DptrError for one that cannot be read.
    """
    path = Path(source)
    if is_lmdb(path):
        yield from lmdb_pictures(path)
    elif path.is_dir():
        files = files_below(path)
        if is_dataset(files):
            yield from _dataset(source, split, column)
        else:
            yield from _folder(path, tried(files))
    elif path.suffix == ".parquet":
        yield from _dataset(source, split, column)
    elif _is_tar(path):
        yield from _tar(path)
    elif path.exists():
        yield path.name, read_picture(path)
    elif path.suffix.lower() in NAMED:
        raise WrongUse(f"there is no file or folder {path}.")
    else:
        yield from _dataset(source, split, column)


def photo_count(source: str) -> int | None:
    """How many pictures a source has; None if that is unknown without reading it."""
    path = Path(source)
    if is_lmdb(path):
        return len(lmdb_samples(path)[0])
    if path.is_dir():
        files = files_below(path)
        usable = tried(files)
        return None if is_dataset(files) or any(map(_packed, usable)) else len(usable)
    return 1 if path.is_file() and path.suffix != ".parquet" and not _is_tar(path) else None


def is_dataset(files: list[Path]) -> bool:
    """Whether `datasets` reads a folder with these files: it holds Parquet other than img2dataset's beside its tars."""
    present = set(files)
    return any(file.suffix == ".parquet" and file.with_suffix(".tar") not in present for file in files)


def _folder(folder: Path, files: list[Path]) -> Iterator[tuple[str, bytes]]:
    for file in files:
        name = file.relative_to(folder).as_posix()
        if file.name == "data.mdb":
            name = file.parent.relative_to(folder).as_posix()
            try:
                yield from ((f"{name}/{key}", data) for key, data in lmdb_pictures(file.parent))
            except DptrError as error:  # the others are read all the same
                yield name, NoPicture(str(error))
        elif file.suffix.lower() in ARCHIVES and _is_tar(file):
            yield from ((f"{name}/{member}", data) for member, data in _tar(file))
        else:
            yield name, read_picture(file)


def tried(files: list[Path]) -> list[Path]:
    """The files of a folder that may hold pictures."""
    return [file for file in files if _may_be_picture(file.name) and file.name != "lock.mdb"]


def _packed(file: Path) -> bool:
    return file.suffix.lower() in ARCHIVES or file.name == "data.mdb"


def _may_be_picture(name: str) -> bool:
    return not Path(name).name.startswith(".") and Path(name).suffix.lower() not in BESIDE


def _is_tar(path: Path) -> bool:
    try:
        return path.is_file() and tarfile.is_tarfile(path)
    except OSError:  # it may not be read
        return False


def _tar(path: Path) -> Iterator[tuple[str, bytes]]:
    """The pictures of an archive; the last is a NoPicture if it could not be read to its end."""
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and _may_be_picture(member.name):
                    yield member.name, TOO_LARGE if member.size > LARGEST else _member(archive, member)
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        yield "(rest)", NoPicture(f"the archive {path} cannot be read completely: {error}")


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return file.read() if file else b""


def picture_columns(dataset: Any) -> list[str]:
    """The columns of a dataset whose type is a picture."""
    import datasets

    return [n for n, f in (dataset.features or {}).items() if isinstance(f, datasets.Image)]


def picture_of(value: Any) -> bytes:
    """The encoded picture of an undecoded cell {"bytes", "path"}; empty if there is none."""
    value = value or {}
    return value.get("bytes") or (read_picture(Path(value["path"])) if value.get("path") else b"")


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
