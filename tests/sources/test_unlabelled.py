"""Pictures whose labels are missing or not looked at come from all that holds pictures."""

import pytest

from cache.errors import WrongUse
from sources.missing import UNLABELLED, NoPicture, NoText
from sources.unlabelled import unlabelled
from tests.helpers.lmdbs import write_lmdb
from tests.helpers.pictures import picture
from train.data.crops import without_labels


def held(sets):
    return {one.name: [(one.key(n), bytes(one.picture(n))) for n in range(len(one))] for one in sets}


def test_a_folder_has_its_pictures_and_the_lmdbs_below_it(tmp_path):
    root = tmp_path / "crops"
    (root / "more").mkdir(parents=True)
    for n, name in enumerate(("b.png", "a.png", "more/c.png")):
        (root / name).write_bytes(picture(n))
    (root / "labels.tsv").write_text("a.png\tWORD\n")
    (root / "gone.png").symlink_to("nowhere.png")
    write_lmdb(root / "lmdb", ["x", None], [picture(3), b""], samples=b"5")
    sets = unlabelled(str(root))
    assert held(sets) == {
        "lmdb": [("image-000000001", picture(3)), ("image-000000002", b"")],
        "crops": [("a.png", picture(1)), ("b.png", picture(0)), ("gone.png", b""), ("more/c.png", picture(2))],
    }
    assert isinstance(sets[1].picture(2), NoPicture)
    assert without_labels(sets).dropped == {"that the LMDB says it has, and has not": 3}
    labels = [label for one in sets for label in one.labels]
    assert all(isinstance(label, NoText) and label.why == UNLABELLED for label in labels)
    assert held(unlabelled(str(root / "lmdb")))["lmdb"][0][1] == picture(3)
    assert held(unlabelled(str(root / "labels.tsv"))) == {"labels": [("a.png", picture(1))]}


def test_what_has_no_pictures_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "one.png").write_bytes(picture(0))
    for name in ("empty", "one.png"):
        with pytest.raises(WrongUse, match=f"{name} holds no pictures: name an LMDB, a folder"):
            unlabelled(str(tmp_path / name))
