"""Labelled word images come out of every kind of source, in any order and in any process."""

import multiprocessing

import pytest

from cache.errors import DptrError, WrongUse
from models.charset import Charset
from sources.labelled import labelled
from sources.photos import photo_count, photos
from sources.unlabelled import unlabelled
from sources.words import Reading, words
from tests.helpers.lmdbs import write_lmdb
from tests.helpers.pictures import picture
from train.data.crops import usable


def check(one, labels, pictures):
    assert one.labels == labels
    assert len(one) == len(labels)
    for n in reversed(range(len(labels))):
        assert one.picture(n) == pictures[n]


def test_lmdb(tmp_path):
    write_lmdb(tmp_path / "set", ["a b", "Café"], [picture(0), picture(1)])
    (one,) = labelled(str(tmp_path / "set"))
    assert one.name == "set"
    assert one.key(1) == "image-000000002"
    check(one, ["a b", "Café"], [picture(0), picture(1)])


def test_lmdb_is_read_by_a_forked_process_as_well(tmp_path):
    write_lmdb(tmp_path / "set", ["a", "b"], [picture(0), picture(1)])
    (one,) = labelled(str(tmp_path / "set"))
    assert one.picture(1) == picture(1)  # opened before the fork
    reader, writer = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=lambda: writer.send_bytes(one.picture(0)))
    process.start()
    assert reader.recv_bytes() == picture(0)
    process.join()


def test_lmdbs_below_a_folder(tmp_path):
    for name in ("b/IIIT5k", "b/SVT", "a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_lmdb(tmp_path / name, [name], [picture(0)])
    assert [(one.name, one.labels) for one in labelled(str(tmp_path))] == [
        ("a", ["a"]),
        ("b/IIIT5k", ["b/IIIT5k"]),
        ("b/SVT", ["b/SVT"]),
    ]


def test_folder_with_a_list(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "1.png").write_bytes(picture(1))
    (tmp_path / "labels.tsv").write_text("x/1.png\tHello\tWorld\n\nmissing.png\tđường\n")
    (one,) = labelled(str(tmp_path))
    check(one, ["Hello\tWorld", "đường"], [picture(1), b""])
    assert [one.key(n) for n in range(2)] == ["x/1.png", "missing.png"]
    (tmp_path / "labels.tsv").write_text("x/1.png\tHello\nx/1.png Hello\n")
    with pytest.raises(DptrError, match="line 2 has no tab"):
        labelled(str(tmp_path))


def test_dataset(tmp_path):
    import datasets

    rows = {"image": [{"bytes": picture(n), "path": None} for n in range(3)], "label": ["a", None, "c"]}
    table = datasets.Dataset.from_dict(
        rows, datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    )
    table.to_parquet(tmp_path / "train.parquet")
    (one,) = labelled(str(tmp_path / "train.parquet"))
    check(one, ["a", "", "c"], [picture(n) for n in range(3)])
    assert one.labels[1].why == "without a label"
    assert one.key(2) == "2"
    (one,) = labelled(str(tmp_path))
    assert one.labels == ["a", "", "c"]
    (one,) = unlabelled(str(tmp_path / "train.parquet"))
    check(one, ["", "", ""], [picture(n) for n in range(3)])
    datasets.Dataset.from_dict({"x": ["a"]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(WrongUse, match="has the columns x: word images need"):
        labelled(str(tmp_path / "other.parquet"))
    with pytest.raises(WrongUse, match="has the columns x: pictures need one of image"):
        unlabelled(str(tmp_path / "other.parquet"))


def test_lmdb_that_was_cut_off_is_named(tmp_path):
    """As a broken-off download leaves it; LMDB itself would kill the process with a bus error."""
    write_lmdb(tmp_path / "set", [str(n) for n in range(500)], [picture(n) for n in range(500)])
    data = tmp_path / "set" / "data.mdb"
    data.write_bytes(data.read_bytes()[:200_000])
    with pytest.raises(DptrError, match="is cut off: it has 200,000 of"):
        labelled(str(tmp_path / "set"))


def test_lmdb_that_claims_more_than_it_has(tmp_path):
    write_lmdb(tmp_path / "set", ["a", "b"], [picture(0), picture(1)], samples=b"1000000000")
    (one,) = labelled(str(tmp_path / "set"))
    check(one, ["a", "b"], [picture(0), picture(1)])
    assert usable([one], Charset(), 25).dropped == {"that the LMDB says it has, and has not": 999_999_998}
    write_lmdb(tmp_path / "bad", ["a"], [picture(0)], samples=b"a\x1bbc")
    with pytest.raises(DptrError, match=r"has num-samples 'a\\x1bbc', which is no number"):
        labelled(str(tmp_path / "bad"))


def test_lmdb_with_keys_of_others(tmp_path):
    """A key far beyond the rest, which num-samples confirms, costs no billion empty labels; odd ones hide nothing."""
    odd = {b"image-5": b"x", b"image-99": b"x", b"label-9999999999": b"x", b"label-x": b"x", b"zz": b"x"}
    planted = {**odd, b"image-999999999": picture(2), b"label-999999999": b"far"}
    for more, labels, missing in ((odd, ["a", "b"], 999_999_997), (planted, ["a", "b", "far"], 999_999_996)):
        folder = tmp_path / f"{len(more)} keys"
        write_lmdb(folder, ["a", "b"], [picture(0), picture(1)], samples=b"999999999", more=more)
        (one,) = labelled(str(folder))
        check(one, labels, [picture(n) for n in range(len(labels))])
        assert one.missing == missing
        assert photo_count(str(folder)) == len(labels)
        *found, rest = photos(str(folder))
        assert [data for _, data in found] == [picture(n) for n in range(len(labels))]
        assert rest[1].why.startswith("the LMDB says that it has 999,999,99")
        assert list(words(str(folder), Reading())) == labels
    assert one.key(2) == "image-999999999"


def test_labels_that_are_not_utf8_are_counted(tmp_path):
    write_lmdb(tmp_path / "set", [b"CAF\xc9", "Café"], [picture(0), picture(1)])
    (one,) = labelled(str(tmp_path / "set"))
    crops = usable([one], Charset("Cafe\u0301é"), 25)
    assert (crops.labels, crops.dropped) == (["Café"], {"that are not UTF-8": 1})


def test_lmdbs_behind_links(tmp_path):
    work = tmp_path / "work"
    (work / "a").mkdir(parents=True)
    write_lmdb(work / "a" / "here", ["here"], [picture(0)])
    write_lmdb(tmp_path / "far", ["far"], [picture(1)])
    (work / "b").symlink_to(tmp_path / "far")
    (work / "a" / "loop").symlink_to(work)
    assert [(one.name, one.labels) for one in labelled(str(work))] == [("a/here", ["here"]), ("b", ["far"])]


def test_what_holds_no_word_images_is_said(tmp_path):
    with pytest.raises(WrongUse, match="holds no word images"):
        labelled(str(tmp_path))
    (tmp_path / "a.png").write_bytes(picture(0))
    with pytest.raises(WrongUse, match="holds no word images"):
        labelled(str(tmp_path / "a.png"))
    write_lmdb(tmp_path / "empty", [])
    with pytest.raises(DptrError, match="no samples"):
        labelled(str(tmp_path / "empty"))
