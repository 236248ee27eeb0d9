"""Pictures come out of every kind of source with their names; for anything else there is a reason."""

import tarfile

import pytest

from cache.errors import DptrError, WrongUse
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


def test_cut_off_tar_is_named(folder, tmp_path):
    path = tmp_path / "photos.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, "photos")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DptrError, match=r"photos\.tar\.gz cannot be read completely"):
        list(photos(str(path)))


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
