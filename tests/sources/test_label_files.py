"""Lists of labelled pictures, each as its makers write it, read as the same crops."""

import json
import os

import pytest

from cache.errors import DptrError, WrongUse
from models.charset import Charset
from sources.labelled import labelled
from tests.helpers.pictures import picture
from train.data.crops import usable

NAMES = ["img/1.png", "img/2.png", "img/3.png"]
LABELS = ["Hello", 'a "b", c', "1984"]


@pytest.fixture
def crops(tmp_path):
    (tmp_path / "img").mkdir()
    for number, name in enumerate(NAMES):
        (tmp_path / name).write_bytes(picture(number))
    return tmp_path


def check(source, labels=LABELS):
    (one,) = labelled(str(source))
    assert one.labels == labels
    assert [one.picture(n) for n in range(len(one))] == [picture(n) for n in range(len(labels))]
    return one


def rows(form, names=NAMES, labels=LABELS, end="\n"):
    return "".join(form.format(name, label) + end for name, label in zip(names, labels, strict=True))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("gt.txt", rows("{}\t{}")),  # OpenOCR, PaddleOCR
        ("train_list.txt", rows("{}\t{}", end="\r\n")),
        ("labels.tsv", "\ufeff" + rows("{} \t {} ")),
        ("list.tsv", "Bild\tWort\n" + rows("{}\t{}")),
        ("windows.txt", rows("{}\t{}").replace("/", "\\")),
        ("parseq.txt", rows("{} {}")),
        ("no-ending.lst", "\n" + rows("{} {}", end="\n\n")),
        ("icdar.txt", "\ufeff" + rows("{}, {}", labels=['"Hello"', r'"a \"b\", c"', '"1984"'], end="\r\n")),
        ("easy.csv", 'filename,words\nimg/1.png,Hello\nimg/2.png,"a ""b"", c"\nimg/3.png,1984\n'),
        ("metadata.csv", 'split,text,file_name\nx,Hello,img/1.png\nx,"a ""b"", c",img/2.png\nx,1984,img/3.png\n'),
        (
            "metadata.jsonl",
            "".join(json.dumps({"file_name": n, "text": w}) + "\n" for n, w in zip(NAMES, LABELS, strict=True)),
        ),
        ("labels.json", json.dumps(dict(zip(NAMES, LABELS, strict=True)))),  # docTR
    ],
)
def test_every_kind_of_list(crops, name, content):
    (crops / name).write_bytes(content.encode())
    check(crops / name)
    if name in ("gt.txt", "labels.tsv", "metadata.csv", "metadata.jsonl", "labels.json"):
        assert check(crops).name == crops.name


def test_lines_end_at_line_feeds_alone(crops):
    labels = ["a\u2028b", "c\x85d", "e\x0bf\rg"]
    (crops / "gt.txt").write_bytes(rows("{}\t{}", labels=labels).encode())
    check(crops / "gt.txt", labels)


def test_folder_of_doctr_keeps_its_pictures_in_images(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(picture(0))
    (tmp_path / "labels.json").write_text('{"a.png": "Hello"}')
    assert check(tmp_path, ["Hello"]).key(0) == "a.png"


def test_list_that_names_its_own_folder(crops):
    (crops / "img" / "rec_gt.txt").write_text(rows("{}\t{}"))
    check(crops / "img" / "rec_gt.txt")


def test_folder_of_one_split_does_not_take_in_the_other(crops):
    for split, label in (("train", "Hello"), ("val", "World")):
        (crops / split).mkdir()
        (crops / split / "1.png").write_bytes(picture(0))
        (crops / split / "metadata.csv").write_text(f"file_name,text\n1.png,{label}\n")
    check(crops, ["Hello"])
    assert labelled(str(crops), "val")[0].labels == ["World"]


def test_when_no_picture_is_there_the_name_is_said(crops):
    (crops / "gt.txt").write_text("word_1.png\tHello\nword_2.png\tWorld\n")
    with pytest.raises(DptrError, match=r"none of the 2 pictures that .*gt\.txt names is .* as .*/word_1"):
        labelled(str(crops))
    (crops / "gt.txt").write_text("")
    with pytest.raises(DptrError, match="names no pictures"):
        labelled(str(crops))


def test_folder_whose_list_has_another_name_says_which(crops):
    (crops / "rec_train.txt").write_text(rows("{}\t{}"))
    with pytest.raises(WrongUse, match=r"name its list of labels, such as .*rec_train\.txt"):
        labelled(str(crops))


def test_what_is_named_and_no_file_is_a_reason(crops):
    os.mkfifo(crops / "pipe.png")
    names = ["/dev/zero", "pipe.png", "img", "gone.png", "img/1.png", "x" * 300 + ".png"]
    (crops / "gt.txt").write_text(rows("{}\t{}", names, ["a"] * 6))
    (one,) = labelled(str(crops))
    odd, gone = "it is a folder, a device or a pipe", "there is no such file"
    found = [one.picture(n) for n in range(6)]
    assert [getattr(data, "why", None) for data in found[:5]] == [odd, odd, odd, gone, None]
    assert found[5].why.startswith("it cannot be read (")


def test_half_a_character_is_a_reason(crops):
    (crops / "labels.json").write_text('{"img/1.png": "a\\ud800", "img/2.png": "b"}')
    found = usable(labelled(str(crops)), Charset(), 25)
    assert (found.labels, found.dropped) == (["b"], {"with half a character (a lone surrogate)": 1})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("labels.json", "{", "is not JSON"),
        ("labels.json", "[" * 100_000, "is not JSON"),
        ("labels.json", "[]", "is no object of pictures and labels"),
        ("labels.json", '{"img/1.png": {"polygons": []}}', "labels that are not text but dict"),
        ("metadata.jsonl", '{"file_name": "img/1.png"}\n', "line 1 has file_name: it needs file_name and text"),
        ("gt.txt", "img/1.png\t\udcff", "cannot be read as UTF-8"),
    ],
)
def test_what_is_wrong_with_a_list_is_one_sentence(crops, name, content, message):
    (crops / name).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(DptrError, match=message):
        labelled(str(crops / name))
