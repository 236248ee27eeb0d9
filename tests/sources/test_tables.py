"""Of a text file with columns, the one with the words is taken, asked for, or said to be taken."""

import pytest

from cache.errors import WrongUse
from sources.words import Reading, words

LISTED = "img/1.jpg\tHello\nimg/2.jpg\t1984\n"


def understood(path, content, column=None):
    """The words, and what is said about them."""
    path.write_bytes(content.encode())
    said = []
    return list(words(str(path), Reading(column, say=said.append))), said


@pytest.mark.parametrize(
    ("name", "content", "column", "expected"),
    [
        ("google.txt", "the\t23135851162\nof\t13151942776\n2019\t5\n", 1, ["the", "of", "2019"]),
        ("one.txt", "the\t23135851162\n", 1, ["the"]),
        ("subtitles.txt", "you 28787591\ni 27086011\n7 22761659\n", 1, ["you", "i", "7"]),
        ("german.txt", "wort;anzahl\nder;31\n7;15\nund;12\n", 1, ["der", "7", "und"]),
        ("german.csv", "wort;anzahl\nder;31\nund;12\n", 1, ["der", "und"]),
        ("ranks.csv", "1,the,2e9\n2,of,1e9\n", 2, ["the", "of"]),
        ("logarithms.tsv", "the\t-1.27\nof\t-1.57\n", 1, ["the", "of"]),
        ("windows.txt", "\ufeffthe\t3\r\nof\t2\r\n", 1, ["the", "of"]),
    ],
)
def test_counts_are_left_out_and_it_is_said(tmp_path, name, content, column, expected):
    found, (said,) = understood(tmp_path / name, content)
    assert found == expected
    assert f"{name} has words with numbers, such as '" in said
    assert f"column {column} is taken" in said
    assert ("the first line for a header" in said) == ("wort" in content)


@pytest.mark.parametrize(
    "content",
    [
        "Gate 1\nGate 2\nGate 3\n",
        "Route 66\nMain Street\n",
        "$1,000\n$2,500\n",
        "a;b\nc;d\n",
        "12 13\n14 15\n",
        "street 5 \n\nHello\n",
    ],
)
def test_words_of_a_plain_list_are_whole_lines(tmp_path, content):
    assert understood(tmp_path / "w.txt", content) == (content.rstrip("\n").split("\n"), [])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (LISTED, r"with a tab, such as 'img/2\.jpg<TAB>1984'.*--column 1 for 'img/2\.jpg' and --column 2 for '1984'"),
        (LISTED.replace("Hello", "12"), "with a tab"),  # numbers that are words
        (LISTED.replace("\t", " "), r"with a blank, such as 'img/2\.jpg 1984'"),
        (LISTED.replace("\t", ";"), "with a semicolon"),
        ("Wort\tword\nStrasse\tstreet\n", "with a tab.*--column 2 for 'street', or --column 0 for whole lines"),
    ],
)
def test_what_could_be_either_is_asked(tmp_path, content, sentence):
    with pytest.raises(WrongUse, match=sentence):
        understood(tmp_path / "gt.txt", content)


@pytest.mark.parametrize(
    ("content", "column", "expected"),
    [
        (LISTED, "2", ["Hello", "1984"]),
        (LISTED, "1", ["img/1.jpg", "img/2.jpg"]),
        (LISTED, "0", LISTED.split("\n")[:2]),
        ("file\tword\n" + LISTED, "word", ["Hello", "1984"]),
        ("img/1.jpg Main Street\nimg/2.jpg x\n", "2", ["Main Street", "x"]),
        ('1.png, "a, b"\n2.png, "c"\n', "2", ["a, b", "c"]),
        ("you 3\ni 2\n", "1", ["you", "i"]),
        ("you 3\ni 2\n", "0", ["you 3", "i 2"]),
        ('"\t5\nb\t\n', "1", ['"', "b"]),
        ("street\nHello\n", "1", ["street", "Hello"]),
    ],
)
def test_column_of_a_text_file(tmp_path, content, column, expected):
    assert understood(tmp_path / "w.txt", content, column) == (expected, [])


def test_column_that_a_text_file_lacks(tmp_path):
    with pytest.raises(WrongUse, match=r"w\.txt has 1 columns, so there is no column 2"):
        understood(tmp_path / "w.txt", "street\nHello\n", "2")
    with pytest.raises(WrongUse, match="there is no column 'word'"):
        understood(tmp_path / "w.txt", LISTED, "word")


def test_a_tab_among_lines_without_is_a_reason(tmp_path):
    found, said = understood(tmp_path / "w.txt", "street\nHello\na\tb\n\tc\t\n")
    assert [getattr(word, "why", word) for word in found] == [
        "street",
        "Hello",
        "with a tab among lines without",
        "\tc\t",
    ]
    assert said == []
