"""Parquet files, of which no page may fill the memory: a file of one kilobyte can unfold to gigabytes.

What a page unfolds to stands in its header, which pyarrow does not show. It is a struct of Thrift's compact protocol
(github.com/apache/parquet-format).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cache.errors import DptrError
from sources.files import LARGEST

BATCH_BYTES = 32 << 20  # of a column, in memory at a time
MOST_ROWS = 65536  # in memory at a time
RATIO = 50  # no picture unfolds so far
DICTIONARY, SHARED_PREFIX = {2, 8}, 7  # encodings in which a value may be longer than its share of the page
FIXED = {"BOOLEAN", "INT32", "INT64", "INT96", "FLOAT", "DOUBLE"}
_WINDOW, _LONGEST_HEADER = 8 << 10, 32 << 20


@dataclass(frozen=True)
class Page:
    """What its header says of a page."""

    values: int  # 0 for a dictionary
    bytes: int  # unfolded
    packed: int  # on the disk
    encoding: int
    dictionary: bool


def check_parquet(path: Path) -> None:
    """DptrError if a page would fill the memory: if it is large, and far larger than it is on the disk."""
    from pyarrow import ArrowInvalid, parquet

    try:
        metadata = parquet.read_metadata(path)
    except (ArrowInvalid, OSError) as error:
        raise DptrError(f"{path} is not a Parquet file: {error}.") from error
    with path.open("rb") as file:
        for group in (metadata.row_group(n) for n in range(metadata.num_row_groups)):
            for chunk in (group.column(n) for n in range(group.num_columns)):
                for page in pages(file, path, chunk):
                    _check(path, page, page.packed * RATIO)


def rows_at_once(file: BinaryIO, path: Path, chunk: Any, as_dictionary: bool) -> int:
    """How many rows of a column chunk can be read together: then the pages that these fill have BATCH_BYTES at most.

    `as_dictionary`: values that rows share are in memory once. DptrError if a page alone would fill the memory.
    """
    rows, dictionary = MOST_ROWS, 1
    for page in pages(file, path, chunk):
        _check(path, page, 0)
        if page.dictionary:
            dictionary = max(1, page.bytes)
        elif chunk.physical_type not in FIXED:
            rows = min(rows, page.values * BATCH_BYTES // max(1, page.bytes))
            if page.encoding == SHARED_PREFIX:
                rows = min(rows, BATCH_BYTES // max(1, page.bytes))
            if page.encoding in DICTIONARY and not as_dictionary:
                rows = min(rows, BATCH_BYTES // dictionary)
    return max(1, rows)


def by_differences(chunk: Any) -> bool:
    """Whether a column chunk has an encoding that pyarrow cannot read as a dictionary."""
    return any(str(encoding) in ("DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY") for encoding in chunk.encodings)


def pages(file: BinaryIO, path: Path, chunk: Any) -> Iterator[Page]:
    """The pages of a column chunk. DptrError if a header cannot be read."""
    at = int(chunk.data_page_offset)
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < at:
        at = int(chunk.dictionary_page_offset)
    end, left = at + int(chunk.total_compressed_size), int(chunk.num_values)
    while left > 0 and at < end:
        header, size = _header(file, path, at)
        # the numbers of fields: type, uncompressed and compressed size, then a struct for each kind of page
        own = header.get(5) or header.get(8) or {}
        encoding = own.get(2 if 5 in header else 4, 0)
        page = Page(own.get(1, 0), header.get(2, 0), header.get(3, 0), encoding, 7 in header)
        if min(page.values, page.bytes, page.packed) < 0:
            raise DptrError(f"{path} is damaged: a page of it has a size below zero.")
        yield page
        left -= page.values
        at += size + page.packed


def _check(path: Path, page: Page, honest: int) -> None:
    if page.bytes > max(LARGEST, honest):
        raise DptrError(
            f"{path} has a page of {page.packed:,} bytes that unfolds to {page.bytes:,}, and {LARGEST >> 20} MB are "
            "allowed: write it again with smaller pages."
        )


def _header(file: BinaryIO, path: Path, at: int) -> tuple[dict[int, Any], int]:
    """The fields of the page header at an offset, by number, and its length."""
    window = _WINDOW
    while True:
        file.seek(at)
        data = file.read(window)
        try:
            return _struct(data, 0, 0)
        except (IndexError, ValueError) as error:  # it goes on, or is none
            if isinstance(error, ValueError) or len(data) < window or window >= _LONGEST_HEADER:
                raise DptrError(f"{path} is damaged: there is no page at byte {at:,}.") from error
        window *= 16


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    fields: dict[int, Any] = {}
    number = 0
    while kind := data[at] & 15:
        step, at = data[at] >> 4, at + 1
        if step:
            number += step
        else:
            number, at = _integer(data, at)
        fields[number], at = _value(data, at, kind, depth)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (1, 2):  # a boolean is its kind
        return kind == 1, at
    if kind in (4, 5, 6):
        return _integer(data, at)
    if kind == 12 and depth < 8:
        return _struct(data, at, depth + 1)
    if kind in (3, 7, 8):
        length, at = (1, at) if kind == 3 else (8, at) if kind == 7 else _varint(data, at)
        if at + length > len(data):
            raise IndexError
        return None, at + length
    raise ValueError("no field of a page header")  # lists and maps are in none


def _integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return value >> 1 ^ -(value & 1), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    raise ValueError("no number")
