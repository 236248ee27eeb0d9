"""Where words come from: text files and tables, compressed or not, the labels of an STR LMDB, or `datasets`."""

import bz2
import codecs
import csv
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO, cast

from cache.errors import DptrError, WrongUse
from sources.hub import load_dataset
from sources.lmdbs import is_lmdb, lmdb_labels

USUAL = ("text", "label", "word", "words", "labels")  # columns that need no --column, in order of preference
LONGEST_LINE = 1 << 20  # characters; the rest counts as another line, so that no file can fill the memory


@dataclass(frozen=True)
class Reading:
    """How to read a source: the column (a name, or a number from 1), the encoding, and the split of a dataset."""

    column: str | None = None
    encoding: str = "utf-8-sig"
    split: str = "train"


def words(source: str, how: Reading) -> Iterator[str]:
    """The raw words of one source, one at a time.

    Raises WrongUse for a source that does not exist, lacks the column or is of an unknown kind, DptrError for one that
    cannot be read.
    """
    try:
        codecs.lookup(how.encoding)
    except LookupError as error:
        raise WrongUse(f"there is no encoding '{how.encoding}': try utf-8, latin-1, gbk or utf-16.") from error
    path = Path(source)
    plain = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path  # words.txt for words.txt.gz
    read = READERS.get(plain.suffix.lower())
    if is_lmdb(path):
        yield from lmdb_labels(path)
    elif read and path.is_file():
        try:
            yield from read(path, how)
        except UnicodeDecodeError as error:
            raise DptrError(
                f"{path} is not {how.encoding.removesuffix('-sig')} at byte {error.start:,}: "
                "name its --encoding (latin-1, gbk, utf-16, ...) or convert it."
            ) from error
        except (EOFError, zlib.error, lzma.LZMAError) as error:
            raise DptrError(f"{path} cannot be unpacked: {error}.") from error
        except OSError as error:
            raise DptrError(f"{path} cannot be read: {error.strerror or error}.") from error
    elif path.is_file():
        kinds = f"{', '.join(READERS)}, the same with {', '.join(COMPRESSED)}"
        raise WrongUse(f"{path} is of an unknown kind: use {kinds}, an LMDB, or the name of a dataset.")
    elif read:
        raise WrongUse(f"there is no file {path}.")
    else:
        dataset = load_dataset(source, how.split)
        name = _choose(dataset.column_names or [], how.column, source)
        yield from (_text(row[name], source, name) for row in dataset.select_columns([name]))


def _zstandard(path: Path) -> Any:
    from pyarrow import input_stream

    return input_stream(str(path), compression="zstd")


COMPRESSED: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _zstandard,
}


def _open(path: Path, how: Reading, newline: str | None = None) -> TextIO:
    unpack = COMPRESSED.get(path.suffix.lower())
    if not unpack:
        return path.open(encoding=how.encoding, newline=newline)
    return TextIOWrapper(cast(Any, unpack(path)), how.encoding, newline=newline)


def _txt(path: Path, how: Reading) -> Iterator[str]:
    with _open(path, how) as file:
        lines = iter(partial(file.readline, LONGEST_LINE), "")
        yield from (line.rstrip("\n") for line in lines)


class _Unquoted(csv.excel_tab):
    quoting = csv.QUOTE_NONE


def _table(separator: str) -> Callable[[Path, Reading], Iterator[str]]:
    def read(path: Path, how: Reading) -> Iterator[str]:
        with _open(path, how, newline="") as file:
            # words in a TSV may contain quotation marks; only CSV has a rule for quoting
            dialect: type[csv.Dialect] = csv.excel if separator == "," else _Unquoted
            rows = csv.reader(file, dialect)
            try:
                first = next(rows, None)
                if first is None:
                    return
                index, header = _column_number(first, how.column, path)
                for row in rows if header else _again(first, rows):
                    yield row[index] if index < len(row) else ""
            except csv.Error as error:
                raise DptrError(f"{path} line {rows.line_num}: {error}.") from error

    return read


def _again(first: list[str], rows: Iterator[list[str]]) -> Iterator[list[str]]:
    yield first
    yield from rows


def _column_number(first: list[str], column: str | None, path: Path) -> tuple[int, bool]:
    """The index of the field that holds the word, and whether the first row is a header."""
    if column is not None and column.isdecimal() and column not in first:
        if not 1 <= int(column) <= len(first):
            raise WrongUse(f"{path} has {len(first)} columns, so there is no column {column}.")
        return int(column) - 1, False
    if column is None and len(first) == 1 and first[0].lower() not in USUAL:
        return 0, False
    return first.index(_choose(first, column, path)), True


def _jsonl(path: Path, how: Reading) -> Iterator[str]:
    with _open(path, how) as file:
        name = how.column
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DptrError(f"{path} line {number} is not JSON: {error}.") from error
            if isinstance(row, dict):
                name = name or _choose(list(row), None, path)
                if name not in row:
                    raise WrongUse(f"{path} line {number} has no '{name}': it has {', '.join(row) or 'nothing'}.")
                row = row[name]
            yield _text(row, path, f"line {number}")


def _parquet(path: Path, how: Reading) -> Iterator[str]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        name = _choose(file.schema_arrow.names, how.column, path)
        for batch in file.iter_batches(columns=[name]):
            yield from (_text(value, path, name) for value in batch.column(0).to_pylist())
    except pa.ArrowInvalid as error:
        raise DptrError(f"{path} is not a Parquet file: {error}.") from error


READERS: dict[str, Callable[[Path, Reading], Iterator[str]]] = {
    ".txt": _txt,
    ".csv": _table(","),
    ".tsv": _table("\t"),
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}


def _choose(names: list[str], column: str | None, source: str | Path) -> str:
    """The column to read: the one asked for, one of the usual names, or the only column."""
    if column in names:
        return str(column)
    usual = [u for u in USUAL if u in names]
    if column is None and (usual or len(names) == 1):
        return (usual or names)[0]
    hint = f"there is no column '{column}'." if column else "which column holds the words?"
    raise WrongUse(f"{source} has the columns {', '.join(names)}: {hint} Use --column NAME, or a number from 1.")


def _text(value: Any, source: str | Path, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str | int | float):
        return str(value)
    raise WrongUse(f"{source} ({where}) holds {type(value).__name__}, not text: choose another --column.")
