"""Pictures come out of every kind of source with their names; for anything else there is a reason."""

import os
import shutil
import tarfile

import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from cache.errors import WrongUse
from sources import files
from sources.photos import photo_count, photos
from tests.helpers.lmdbs import write_lmdb
from tests.helpers.pictures import picture


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.png").write_bytes(picture(1))
    (folder / "sub" / "a.jpg").write_bytes(picture(2, kind="JPEG"))
    (folder / "no-suffix").write_bytes(picture(3))
    (folder / "labels.txt").write_text("not tried")
    (folder / ".hidden.png").write_bytes(picture(4))
    return folder


def test_folder(folder):
    found = dict(photos(str(folder)))
    assert list(found) == ["b.png", "no-suffix", "sub/a.jpg"]
    assert found["b.png"] == picture(1)
    assert photo_count(str(folder)) == 3


def test_single_picture(folder):
    assert list(photos(str(folder / "b.png"))) == [("b.png", picture(1))]
    assert photo_count(str(folder / "b.png")) == 1


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_tar(folder, tmp_path, mode):
    with tarfile.open(tmp_path / "photos.tar", mode) as archive:
        archive.add(folder, "photos")
    found = dict(photos(str(tmp_path / "photos.tar")))
    assert sorted(found) == ["photos/b.png", "photos/no-suffix", "photos/sub/a.jpg"]
    assert found["photos/b.png"] == picture(1)
    assert photo_count(str(tmp_path / "photos.tar")) is None


def test_of_a_tar_that_is_cut_off_the_beginning_is_kept(folder, tmp_path):
    path = tmp_path / "photos.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=0) as archive:
        archive.add(folder / "b.png", "1.png")
        archive.add(folder / "no-suffix", "2.png")
    path.write_bytes(path.read_bytes()[:9000])
    (name, first), (rest, none) = photos(str(path))
    assert (name, first) == ("1.png", picture(1))
    assert (rest, none) == ("(rest)", b"")
    assert "photos.tar.gz cannot be read completely" in none.why
    shutil.copy(path, folder / "a.tar.gz")  # what follows is read all the same
    assert list(dict(photos(str(folder)))) == ["a.tar.gz/1.png", "a.tar.gz/(rest)", "b.png", "no-suffix", "sub/a.jpg"]


def test_folder_of_img2dataset(folder, tmp_path):
    work = tmp_path / "laion"
    work.mkdir()
    for shard in ("00000", "00001"):
        with tarfile.open(work / f"{shard}.tar", "w") as archive:
            archive.add(folder / "b.png", f"{shard}0000.png")
            archive.add(folder / "labels.txt", f"{shard}0000.txt")
        pq.write_table(pa.table({"url": ["x"], "status": ["success"]}), work / f"{shard}.parquet")
        (work / f"{shard}_stats.json").write_text("{}")
    found = dict(photos(str(work)))
    assert found == {"00000.tar/000000000.png": picture(1), "00001.tar/000010000.png": picture(1)}
    assert photo_count(str(work)) is None


def test_folders_behind_links_are_read_once(folder, tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "c.png").write_bytes(picture(5))
    write_lmdb(tmp_path / "far" / "set", ["a"], [picture(6)])
    (folder / "a-link").symlink_to(tmp_path / "far")
    (folder / "sub" / "loop").symlink_to(folder)
    (folder / "a-sub").symlink_to(folder / "sub")  # lies here under its own name
    found = dict(photos(str(folder)))
    assert list(found) == ["a-link/c.png", "a-link/set/image-000000001", "b.png", "no-suffix", "sub/a.jpg"]
    assert [found["a-link/c.png"], found["a-link/set/image-000000001"]] == [picture(5), picture(6)]


def test_what_is_no_file_is_named_and_not_read(folder, monkeypatch):
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "gone.png").symlink_to(folder / "nowhere")
    monkeypatch.setattr(files, "LARGEST", 5000)
    (folder / "huge.png").write_bytes(bytes(5001))
    assert len(picture(1)) > 5000
    found = {name: getattr(data, "why", None) for name, data in photos(str(folder))}
    assert found["pipe.png"] == found["zero.png"] == "it is a folder, a device or a pipe"
    assert found["gone.png"] == "there is no such file"
    assert "it has over" in found["huge.png"]
    assert [getattr(data, "why", "") for _, data in photos("/dev/zero")] == [found["zero.png"]]


def test_lmdb_that_claims_more_than_it_has(tmp_path):
    write_lmdb(tmp_path / "set", ["a", "b"], [picture(1), picture(2)], samples=b"1000000000")
    *found, (rest, none) = photos(str(tmp_path / "set"))
    assert found == [("image-000000001", picture(1)), ("image-000000002", picture(2))]
    assert (rest, none.why) == (
        "num-samples",
        "the LMDB says that it has 999,999,998 more pictures, which are not there",
    )
    assert photo_count(str(tmp_path / "set")) == 2


def test_lmdb(tmp_path):
    write_lmdb(tmp_path / "set", ["a", "b"], [picture(1), picture(2)])
    assert list(photos(str(tmp_path / "set"))) == [("image-000000001", picture(1)), ("image-000000002", picture(2))]
    assert photo_count(str(tmp_path / "set")) == 2


def test_dataset(tmp_path):
    import datasets

    table = datasets.Dataset.from_dict({"image": [{"bytes": picture(n), "path": None} for n in range(3)]})
    (tmp_path / "set").mkdir()
    table.cast_column("image", datasets.Image()).to_parquet(str(tmp_path / "set" / "train.parquet"))
    for source in (tmp_path / "set", tmp_path / "set" / "train.parquet"):
        assert [data for _, data in photos(str(source))] == [picture(n) for n in range(3)]
        assert photo_count(str(source)) is None
    with pytest.raises(WrongUse, match="name the one with pictures as --column"):
        list(photos(str(tmp_path / "set" / "train.parquet"), column="x"))


def test_missing_source(tmp_path):
    with pytest.raises(WrongUse, match="there is no file or folder"):
        list(photos(str(tmp_path / "none.tar")))
