"""What people read is in words and columns, and no label steers their terminal."""

import os
import subprocess
import sys
from collections import Counter

import pytest

from cache.report import columns, counts, printable


def test_counts_by_reason_are_words():
    assert counts(Counter({"without a label": 1200, "empty": 2})) == "1,200 without a label, 2 empty"
    assert counts({}) == ""


ROWS = [
    ["set", "words", "1-NED"],
    ["x" * 200, "1,234", "0.5"],
    ["汉字", "7", ""],
    ["", "", ""],
    ["[b]:x:[/b]", "1", "2"],
]
LINES = [
    "set".ljust(200) + "  words  1-NED",
    "x" * 200 + "  1,234    0.5",
    "汉字".ljust(198) + "      7",  # two places each
    "",
    "[b]:x:[/b]".ljust(200) + "      1      2",
]


def test_columns_are_as_wide_as_what_is_in_them():
    assert columns(ROWS) == LINES
    assert columns([["a", "bb", "c"], ["aa", "b", "cc"]], left=2) == ["a   bb   c", "aa  b   cc"]


@pytest.mark.parametrize("setting", ["FORCE_COLOR=1", "COLUMNS=20", "TERM=dumb", "NO_COLOR=1"])
def test_columns_are_the_same_plain_text_everywhere(setting):
    name, _, value = setting.partition("=")
    code = f"from cache.report import columns; print(*columns({ROWS}), sep='\\n')"
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", name: value}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    assert done.stdout.decode().splitlines() == LINES


def test_what_a_terminal_would_obey_is_escaped():
    assert printable("a\x1b[31m\t\r\u202e\x9b\ud800") == r"a\x1b[31m\t\r\u202e\x9b\ud800"
    assert printable("phở 汉字 हिन्दी $[]") == "phở 汉字 हिन्दी $[]"
    assert columns([["\x07", "b"]]) == [r"\x07  b"]
