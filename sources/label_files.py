"""Lists of labelled pictures, as their makers write them: which picture shows which word.

Known are: a picture and its label, with a tab, a comma or a blank in between (OpenOCR, PaddleOCR, ICDAR, parseq); a
table with a header, or JSON lines, with one column of each (Hugging Face); and a JSON object (docTR).
"""

import csv
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any, TextIO

from cache.errors import DptrError
from cache.report import printable
from sources.files import LARGEST
from sources.lines import Unquoted, json_lines, lines, sampled
from sources.missing import UNLABELLED, NoText, whole

USUAL_LISTS = ("labels.tsv", "labels.json", "metadata.csv", "metadata.jsonl", "gt.txt", "labels.txt", "labels.csv")
ENDINGS = {".tsv", ".txt", ".csv", ".json", ".jsonl", ".lst"}
PICTURES = ("file_name", "filename", "file", "image", "img", "picture", "path", "image_path")  # columns, in this order
LABELS = ("text", "label", "word", "words", "labels", "transcription")
_ENDING = r"\.(?:png|jpe?g|bmp|webp|gif|tiff?|jp2|avif|ppm)"
_PICTURE = re.compile(rf".+{_ENDING}", re.IGNORECASE)
# by what stands between the two; a name may have blanks and commas of its own if it has a usual ending
_SPLITS = [
    re.compile(r"(?P<name>[^\t]+)\t(?P<label>.*)", re.DOTALL),
    re.compile(rf"(?P<name>.+?{_ENDING}) *, *(?P<label>.*)", re.DOTALL | re.IGNORECASE),
    re.compile(r"(?P<name>[^,]+), *(?P<label>\".*\")", re.DOTALL),
    re.compile(rf"(?P<name>.+?{_ENDING}) +(?P<label>.*)", re.DOTALL | re.IGNORECASE),
    re.compile(r"(?P<name>[^ ]+) +(?P<label>.*)", re.DOTALL),
]


def list_in(folder: Path) -> Path | None:
    """The list of labelled pictures in a folder, if it has one of the usual names."""
    return next((folder / name for name in USUAL_LISTS if (folder / name).is_file()), None)


def labelled_files(file: Path) -> tuple[list[Path], list[str], list[str]]:
    """The pictures that a list names, what it calls them, and their labels, which are NoText where they are no text.

    Raises DptrError for a list that cannot be read, and for one none of whose pictures is there.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="\n") as opened:
            kind = {".json": _json, ".jsonl": _json_lines}.get(file.suffix.lower(), _plain)
            pairs = list(kind(opened, file))
    except (OSError, UnicodeDecodeError) as error:
        raise DptrError(f"{file} cannot be read as UTF-8: {error}.") from error
    names = [name for name, _ in pairs]
    return _found(file, names), names, [label for _, label in pairs]


def _found(file: Path, names: list[str]) -> list[Path]:
    """Where the pictures are: beside the list, in `images` beside it (docTR), or beside its folder (PaddleOCR)."""
    folders = (file.parent, file.parent / "images", file.parent.parent)
    written = (lambda name: name, lambda name: PureWindowsPath(name).as_posix())
    for name in names:
        for folder in folders:
            for path in written:
                if os.path.exists(folder / path(name)):
                    return [_either(folder, one) for one in names]
    if not names:
        raise DptrError(f"{file} names no pictures: each line is a picture's file, a tab, and its label.")
    raise DptrError(
        f"none of the {len(names):,} pictures that {file} names is there; the first was looked for as "
        f"{printable(str(folders[0] / names[0]))}: put the list beside its pictures, or correct the names."
    )


def _either(folder: Path, name: str) -> Path:
    plain = folder / name
    windows = "\\" in name and not os.path.exists(plain)
    return folder / PureWindowsPath(name).as_posix() if windows else plain


Pairs = Iterator[tuple[str, str]]


def _plain(opened: TextIO, file: Path) -> Pairs:
    sample, every = sampled(lines(opened), 20)
    if not sample:
        return
    for separator in "\t,;":
        columns = next(csv.reader(sample[:1], delimiter=separator))
        name, label = _column(columns, PICTURES), _column(columns, LABELS)
        if name is not None and label is not None:
            yield from _table(every, separator, name, label, file)
            return
    # by two lines, because the first may be a header
    split = next((one for one in _SPLITS if any(map(one.fullmatch, sample[:2]))), _SPLITS[0])
    header = len(sample) > 1 and not _named(split, sample[0], file) and _named(split, sample[1], file)
    for number, line in enumerate(every, 1):
        if isinstance(line, NoText):
            yield f"line {number}", line
        if not line.strip() or (header and line is sample[0]):
            continue
        pair = split.fullmatch(line)
        if pair is None:
            raise DptrError(f"{file} line {number} has no tab: each line is a file, a tab, and its label.")
        yield pair["name"].strip(), _unquoted(pair["label"].strip(" "), split in _SPLITS[1:3])


def _named(split: re.Pattern[str], line: str, file: Path) -> bool:
    """Whether a line begins with what is called like a picture, or is there."""
    pair = split.fullmatch(line)
    name = pair["name"].strip() if pair else ""
    return _PICTURE.fullmatch(name) is not None or (name != "" and os.path.exists(file.parent / name))


def _unquoted(label: str, quoted: bool) -> str:
    """ICDAR's labels are in quotation marks, with a backslash before those of their own."""
    if quoted and len(label) > 1 and label[0] == label[-1] == '"':
        return label[1:-1].replace('\\"', '"')
    return label


def _table(rows: Iterator[str], separator: str, name: int, label: int, file: Path) -> Pairs:
    # a TSV has no rule for quoting
    dialect: type[csv.Dialect] = Unquoted if separator == "\t" else csv.excel
    table = csv.reader((row + "\n" for row in rows), dialect, delimiter=separator)
    try:
        next(table)
        yield from ((row[name].strip(), row[label]) for row in table if len(row) > max(name, label))
    except csv.Error as error:
        raise DptrError(f"{file} line {table.line_num}: {error}.") from error


def _json(opened: TextIO, file: Path) -> Pairs:
    try:
        found = json.loads(opened.read(LARGEST))
    except (ValueError, RecursionError) as error:
        raise DptrError(f"{file} is not JSON: {error}.") from error
    if not isinstance(found, dict):
        raise DptrError(f"{file} is no object of pictures and labels, as in {{'1.png': 'Hello'}}.")
    yield from ((name, _text(label, file)) for name, label in found.items())


def _json_lines(opened: TextIO, file: Path) -> Pairs:
    for number, row in json_lines(opened, file):
        if isinstance(row, NoText):
            yield f"line {number}", row
            continue
        names = list(row) if isinstance(row, dict) else []
        name, label = _column(names, PICTURES), _column(names, LABELS)
        if name is None or label is None:
            raise DptrError(
                f"{file} line {number} has {', '.join(names) or 'no columns'}: it needs file_name and text."
            )
        yield str(row[names[name]]), _text(row[names[label]], file)


def _column(names: list[str], usual: tuple[str, ...]) -> int | None:
    plain = [name.strip().lower() for name in names]
    return next((plain.index(one) for one in usual if one in plain), None)


def _text(label: Any, file: Path) -> str:
    if label is None:
        return NoText(UNLABELLED)
    if isinstance(label, str | int | float):
        return whole(str(label))
    raise DptrError(f"{file} has labels that are not text but {type(label).__name__}: each picture has one word.")
