"""Where words come from: text files and tables, compressed or not, the labels of an STR LMDB, or `datasets`."""

import bz2
import codecs
import csv
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO, cast

from cache.errors import DptrError, WrongUse
from sources.files import files_below
from sources.hub import load_dataset
from sources.lines import LONGEST_LINE, TOO_LONG, json_lines, lines, sampled
from sources.lmdbs import is_lmdb, lmdb_labels, lmdb_samples
from sources.missing import NoText, whole
from sources.parquet import by_differences, rows_at_once
from sources.tables import SAMPLE, Table, chosen_column, table_of, text_table

csv.field_size_limit(LONGEST_LINE)


@dataclass(frozen=True)
class Reading:
    """How to read a source: the column (a name, or a number from 1), the encoding, and the split of a dataset.

    `say` is told how a source was understood, where that is not plain.
    """

    column: str | None = None
    encoding: str = "utf-8-sig"
    split: str = "train"
    say: Callable[[str], None] = lambda _: None


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
    lmdbs = [path] if is_lmdb(path) else _lmdbs_below(path)
    if lmdbs:
        for one in lmdbs:
            if missing := lmdb_samples(one)[1]:
                how.say(f"the LMDB {one} says that it has {missing:,} more samples, which are not there.")
            yield from lmdb_labels(one, how.encoding.removesuffix("-sig"))
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
    elif read and not path.is_dir():
        raise WrongUse(f"{path} is a device or a pipe." if path.exists() else f"there is no file {path}.")
    else:
        dataset = load_dataset(source, how.split)
        name = chosen_column(dataset.column_names or [], how.column, source)
        yield from (_text(row[name], source, name) for row in dataset.select_columns([name]))


def _lmdbs_below(path: Path) -> list[Path]:
    return [file.parent for file in files_below(path) if file.name == "data.mdb"] if path.is_dir() else []


def _zstandard(path: Path) -> Any:
    from pyarrow import input_stream

    return input_stream(str(path), compression="zstd")


COMPRESSED: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _zstandard,
}


def _open(path: Path, how: Reading) -> TextIO:
    unpack = COMPRESSED.get(path.suffix.lower())
    if not unpack:
        return path.open(encoding=how.encoding, newline="\n")
    return TextIOWrapper(cast(Any, unpack(path)), how.encoding, newline="\n")


def _divided(understand: Callable[[list[str], Path, str | None], Table]) -> Callable[[Path, Reading], Iterator[str]]:
    """A reader of lines, which `understand` says how to divide."""

    def read(path: Path, how: Reading) -> Iterator[str]:
        with _open(path, how) as file:
            sample, every = sampled(lines(file), SAMPLE)
            plain = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
            try:
                table = understand(sample or [""], plain, how.column)
                if table.say:
                    how.say(table.say)
                yield from table.words(every, plain)
            except csv.Error as error:
                raise DptrError(f"{path} is no table: {error}.") from error

    return read


def _jsonl(path: Path, how: Reading) -> Iterator[str]:
    with _open(path, how) as file:
        name = how.column
        for number, row in json_lines(file, path):
            if isinstance(row, dict):
                name = name or chosen_column(list(row), None, path)
                if name not in row:
                    raise WrongUse(f"{path} line {number} has no '{name}': it has {', '.join(row) or 'nothing'}.")
                row = row[name]
            yield row if isinstance(row, NoText) else _text(row, path, f"line {number}")


def _parquet(path: Path, how: Reading) -> Iterator[str]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            name = chosen_column(file.schema_arrow.names, how.column, path)
            kind, metadata = file.schema_arrow.field(name).type, file.metadata
        if pa.types.is_nested(kind):
            raise WrongUse(f"{path} ({name}) holds {kind}, not text: choose another --column.")
        groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
        chunks = [group.column(n) for group in groups for n in range(group.num_columns)]
        chunks = [chunk for chunk in chunks if chunk.path_in_schema == name]
        # as a dictionary, a long value that every row repeats is in memory once
        text = (pa.types.is_string(kind) or pa.types.is_binary(kind)) and not any(map(by_differences, chunks))
        with (
            path.open("rb") as headers,
            parquet.ParquetFile(path, read_dictionary=[name] if text else None, buffer_size=1 << 20) as file,
        ):
            for number, chunk in enumerate(chunks):
                rows = rows_at_once(headers, path, chunk, text)
                for batch in file.iter_batches(rows, row_groups=[number], columns=[name]):
                    column = batch.column(0)
                    if text:
                        places, values = column.indices.to_pylist(), column.dictionary
                        yield from (_text(None if n is None else values[n].as_py(), path, name) for n in places)
                    else:
                        yield from (_text(value.as_py(), path, name) for value in column)
    except pa.ArrowInvalid as error:
        raise DptrError(f"{path} is not a Parquet file: {error}.") from error


READERS: dict[str, Callable[[Path, Reading], Iterator[str]]] = {
    ".txt": _divided(text_table),
    ".csv": _divided(partial(table_of, separator=",")),
    ".tsv": _divided(partial(table_of, separator="\t")),
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}


def _text(value: Any, source: str | Path, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str | int | float):
        return whole(str(value)) if len(str(value)) <= LONGEST_LINE else NoText(TOO_LONG)
    raise WrongUse(f"{source} ({where}) holds {type(value).__name__}, not text: choose another --column.")
