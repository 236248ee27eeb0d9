"""Which column of a text file holds the words: lines are looked at before any is taken for a word."""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cache.errors import WrongUse
from cache.report import printable
from sources.lines import Unquoted
from sources.missing import NoText

USUAL = ("text", "label", "word", "words", "labels")  # columns that need no --column, in order of preference
SAMPLE = 200  # lines that are looked at
WHOLE_LINES = "0"  # the --column of a .txt whose lines are words, whatever they look like
_NUMBER = re.compile(r"[-+]?\d+([.,]\d+)*(e[-+]?\d+)?%?", re.IGNORECASE)
_PICTURE = re.compile(r".+\.(png|jpe?g|bmp|webp|gif|tiff?)", re.IGNORECASE)
WHOLE = "\n"  # what separates the fields of lines that have one
_NAMES = {"\t": "tab", ";": "semicolon", ",": "comma", " ": "blank"}


@dataclass(frozen=True)
class Table:
    """How a line is divided ("" not at all), which of its fields is the word, and whether the first is a header."""

    separator: str
    index: int = 0
    header: bool = False
    say: str = ""  # what a person should know of how the file was understood

    def words(self, lines: Iterator[str], path: Path) -> Iterator[str]:
        """The word of each line; NoText for one that is too long, or has tabs where others have none."""
        if not self.separator:
            for line in lines:
                yield NoText("with a tab among lines without") if "\t" in line and "\t" in line.strip() else line
            return
        rows = divided(lines, self.separator, path.suffix == ".txt")
        if self.header:
            next(rows, None)
        for row in rows:
            yield row if isinstance(row, NoText) else row[self.index] if self.index < len(row) else ""


def divided(lines: Iterator[str], separator: str, text: bool) -> Iterator[list[str] | NoText]:
    """The fields of each line. CSV has its rule for quotation marks, which may hold line ends; raises csv.Error."""
    if separator == WHOLE:
        yield from (line if isinstance(line, NoText) else [line] for line in lines)
        return
    if separator == " ":
        for line in lines:
            named = _PICTURE.fullmatch(line.split(None, 1)[0]) if line.strip() else None
            yield line if isinstance(line, NoText) else line.split(None, 1 if named else -1)
        return
    last = ""

    def fed() -> Iterator[str]:
        nonlocal last
        for last in lines:
            yield last + "\n"

    dialect: type[csv.Dialect] = Unquoted if separator == "\t" else csv.excel
    for row in csv.reader(fed(), dialect, delimiter=separator, skipinitialspace=text):
        yield last if isinstance(last, NoText) else row


def table_of(sample: list[str], path: Path, column: str | None, separator: str) -> Table:
    """How to read the words of a CSV (`separator` ",") or TSV, by its first lines."""
    if separator == "," and "," not in sample[0]:
        separator = next((other for other in ";\t" if all(other in line for line in sample)), ",")
    rows = _rows(sample, separator, False)
    if column is None and len(rows[0]) == 1 and rows[0][0].lower() not in USUAL:
        return Table(separator)
    if column is None and not set(USUAL) & set(rows[0]) and (found := _counted(rows, separator, _shown(sample), path)):
        return found
    return _chosen(rows[0], separator, column, path)


def text_table(sample: list[str], path: Path, column: str | None) -> Table:
    """How to read the words of a .txt, by its first lines: a word a line, words with their counts, or a column.

    Raises WrongUse, with what was seen, where lines have tabs and nothing says which part is the word.
    """
    if column == WHOLE_LINES:
        return Table(WHOLE)
    if column is not None:
        tabs = any("\t" in line for line in sample)
        separator = "\t" if tabs else next((s for s in _NAMES if all(s in line.strip() for line in sample)), WHOLE)
        return _chosen(_rows(sample, separator, True)[0], separator, column, path)
    found = [s for s in _NAMES if sum(s in line.strip() for line in sample) > (len(sample) / 2 if s == "\t" else 0)]
    for separator in (s for s in found if s != ","):
        rows = _rows(sample, separator, True)
        named = all(row and _PICTURE.fullmatch(row[0].strip()) for row in rows)
        if not named and (counted := _counted(rows, separator, _shown(sample), path)):
            return counted
        if separator == "\t" or (named and len(rows) > 1):
            seen = enumerate(rows[:2][-1][:4], 1)
            parts = " and ".join(f"--column {n} for '{printable(part[:30])}'" for n, part in seen)
            raise WrongUse(
                f"{path} has lines with a {_NAMES[separator]}, such as '{_shown(sample)}': say which part is the word, "
                f"{parts}, or --column {WHOLE_LINES} for whole lines."
            )
    return Table("")


def _rows(sample: list[str], separator: str, text: bool) -> list[list[str]]:
    return [row for row in divided(iter(sample), separator, text) if row and not isinstance(row, NoText)] or [[""]]


def _counted(rows: list[list[str]], separator: str, shown: str, path: Path) -> Table | None:
    """The table of rows that are one word and numbers, as frequency lists are; None for others."""
    width, body = len(rows[0]), rows[1:] or rows
    if width < 2 or any(len(row) != width for row in rows):
        return None
    numbers = [n for n in range(width) if all(_NUMBER.fullmatch(row[n].strip()) for row in body)]
    words = [n for n in range(width) if n not in numbers]
    if len(words) != 1:
        return None
    index = words[0]
    distinct = {row[index] for row in rows}
    if separator == " " and ((width, index) != (2, 0) or len(rows) < 2 or len(distinct) < len(rows)):
        return None  # words of their own, such as "Gate 1" and "Gate 2"
    header = len(rows) > 1 and not any(_NUMBER.fullmatch(rows[0][n].strip()) for n in numbers)
    if _PICTURE.fullmatch(body[0][index].strip()):
        return None
    more = f" --column {WHOLE_LINES} takes whole lines." if path.suffix == ".txt" else ""
    say = (
        f"{path} has words with numbers, such as '{shown}': column {index + 1} is taken for the words"
        f"{', the first line for a header' * header}, and the numbers are left out.{more}"
    )
    return Table(separator, index, header, say)


def _shown(sample: list[str]) -> str:
    """A line, not the first if that may be a header."""
    return printable(sample[:2][-1][:60].replace("\t", "<TAB>"))


def _chosen(first: list[str], separator: str, column: str | None, path: Path) -> Table:
    if column is not None and column.isdecimal() and column not in first:
        if not 1 <= int(column) <= len(first):
            raise WrongUse(f"{path} has {len(first)} columns, so there is no column {column}.")
        return Table(separator, int(column) - 1)
    return Table(separator, first.index(chosen_column(first, column, path)), True)


def chosen_column(names: list[str], column: str | None, source: str | Path) -> str:
    """The column to read: the one asked for, one of the usual names, or the only column; WrongUse if none is."""
    if column in names:
        return str(column)
    usual = [u for u in USUAL if u in names]
    if column is None and (usual or len(names) == 1):
        return (usual or names)[0]
    hint = f"there is no column '{column}'." if column else "which column holds the words?"
    raise WrongUse(f"{source} has the columns {', '.join(names)}: {hint} Use --column NAME, or a number from 1.")
