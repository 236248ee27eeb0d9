"""Lines of text: they end at LF or CR LF alone, and none may fill the memory."""

import csv
import json
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from cache.errors import DptrError
from sources.missing import NoText

LONGEST_LINE = 1 << 20  # characters
TOO_LONG = f"in a line longer than {LONGEST_LINE:,} characters"


class Unquoted(csv.excel_tab):
    """A table whose fields may hold quotation marks; only CSV has a rule for quoting."""

    quoting = csv.QUOTE_NONE


def lines(file: TextIO) -> Iterator[str]:
    """The lines of a file that was opened with newline="\\n", without their ends; NoText in place of one too long."""
    pieces = iter(partial(file.readline, LONGEST_LINE), "")
    for piece in pieces:
        if piece.endswith("\n"):
            yield piece[:-1].removesuffix("\r")
        elif len(piece) < LONGEST_LINE:
            yield piece.removesuffix("\r")  # the last one, without an end
        else:
            for rest in pieces:
                if rest.endswith("\n"):
                    break
            yield NoText(TOO_LONG)


def json_lines(file: TextIO, path: Path) -> Iterator[tuple[int, Any]]:
    """The number and the value of each line that is not blank; the value is NoText where `lines` has it.

    DptrError, which names the line, if one is not JSON.
    """
    for number, line in enumerate(lines(file), 1):
        if isinstance(line, NoText):
            yield number, line
        elif line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DptrError(f"{path} line {number} is not JSON: {error}.") from error


def sampled(source: Iterator[str], size: int) -> tuple[list[str], Iterator[str]]:
    """The first `size` lines that are not blank, and all lines."""
    first: list[str] = []
    sample: list[str] = []
    for line in source:
        first.append(line)
        if line.strip():
            sample.append(line)
        if len(sample) == size or len(first) == 10 * size:
            break
    return sample, chain(first, source)
