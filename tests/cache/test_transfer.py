"""Push and pull move what is missing, can be stopped at any moment, and show readers nothing that is not complete."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

import cache.objects
import cache.transfer
from cache.errors import Damaged, DptrError, WrongUse
from cache.keys import as_keys
from cache.lock import writing
from cache.memories import key_of
from cache.seal import seal
from cache.space import open_space, spaces
from cache.transfer import pull, push
from tests.helpers.files import flip
from tests.helpers.stores import Shaky

URL = Path("shaky://bucket/cache")
pytestmark = pytest.mark.usefixtures("store")


def go(transfer):
    """The bytes that went over, as progress counts them."""
    counted = []
    transfer.run(counted.append)
    return sum(counted)


def files(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"
    }


def sealed(data):
    """As the bytes of an index end."""
    return data + hashlib.sha256(data).digest()


def stored():
    return {n.removeprefix("/bucket/cache/"): data.getvalue() for n, data in Shaky.store.items()}


@pytest.fixture
def ours(here, tmp_path):
    """A copy to change, with a bank's files beside its shards."""
    folder = shutil.copytree(here, tmp_path / "ours")
    bank = next(folder.iterdir()) / "banks" / "photos"
    bank.mkdir(parents=True)
    (bank / "index.faiss").write_bytes(sealed(b"i" * 50))
    (bank / "skipped.json").write_text(seal({"skipped": {"x": "no picture"}}, indent=2) + "\n")
    return folder


def grow(folder):
    """Another shard of memories and labels."""
    space = open_space(folder)
    with writing(space.folder):
        keys = as_keys([key_of([9, k]) for k in range(5)])
        space.memories.add(keys, np.ones((5, 8), np.float16), np.ones(5, np.int64))
        space.corpus("words").add([f"9 {k}" for k in range(5)], keys, [1] * 5)


def test_pushed_and_pulled_it_is_the_same_byte_for_byte(ours, tmp_path):
    sent = go(push(ours, URL, None))
    assert stored() == files(ours)
    assert sent == sum(len(data) for name, data in stored().items() if name.endswith(".h5"))
    assert go(pull(URL, tmp_path / "theirs", None)) == sent
    assert files(tmp_path / "theirs") == files(ours)
    assert go(push(ours, URL, None)) == go(pull(URL, tmp_path / "theirs", None)) == 0


def test_only_what_is_new_goes(ours, tmp_path, monkeypatch):
    go(push(ours, URL, None))
    go(pull(URL, tmp_path / "theirs", None))
    before = files(ours)
    grow(ours)
    (index,) = ours.rglob("index.faiss")
    index.write_bytes(sealed(b"o" * 50))
    written = []
    monkeypatch.setattr(
        Shaky, "pipe_file", lambda self, path, data: written.append(path) or Shaky.__base__.pipe_file(self, path, data)
    )
    new = [name for name in files(ours) if files(ours)[name] != before.get(name)]
    go(push(ours, URL, None))
    assert sorted(name.removeprefix("/bucket/cache/") for name in written) == sorted(new)
    Shaky.sent.clear()
    go(pull(URL, tmp_path / "theirs", None))
    assert files(tmp_path / "theirs") == files(ours) == stored()
    assert Shaky.sent["h5"] == sum(len(files(ours)[name]) for name in new if name.endswith(".h5"))


def test_whenever_a_push_stops_what_is_there_is_complete_and_the_same_command_ends_it(ours, monkeypatch):
    monkeypatch.setattr(cache.transfer, "COMMIT", 1)
    monkeypatch.setattr(cache.transfer, "AT_ONCE", 1)
    write, seen, left = Shaky.pipe_file, set(), 0

    def limited(self, path, data):
        nonlocal left
        left -= 1
        if left < 0:
            raise PermissionError("no more today")
        write(self, path, data)

    monkeypatch.setattr(Shaky, "pipe_file", limited)
    for done in range(100):
        left = 1 if done % 2 else 2  # sometimes between a shard and its manifest
        try:
            go(push(ours, URL, None))
            break
        except DptrError as error:
            text = str(error)
        assert "cannot be written (no more today)" in text
        for space in spaces(URL):
            labels = space.memory_numbers(space.corpus("words"))  # every label has its memory
            assert space.constants()
            seen.add((space.memories.rows, len(labels)))
    assert stored() == files(ours)
    assert not seen  # space.json goes last
    grow(ours)
    for done in range(100):
        left = 1 if done % 2 else 2
        try:
            go(push(ours, URL, None))
            break
        except DptrError:
            space = open_space(URL)
            seen.add((space.memories.rows, len(space.memory_numbers(space.corpus("words")))))
    assert seen <= {(600, 600), (605, 600), (605, 605)}
    assert (605, 600) in seen
    assert stored() == files(ours)


def test_a_pull_that_stops_goes_on_and_fetches_nothing_twice(ours, tmp_path, monkeypatch):
    go(push(ours, URL, None))
    theirs = tmp_path / "theirs"
    Shaky.sent.clear()
    checked, left = cache.transfer.There.checked, 3

    def limited(self, name, size, right):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return checked(self, name, size, right)

    monkeypatch.setattr(cache.transfer.There, "checked", limited)
    with pytest.raises(KeyboardInterrupt):
        go(pull(URL, theirs, None))
    assert not spaces(theirs)
    assert len(list(theirs.rglob("*.h5"))) == 3
    left = 1000
    go(pull(URL, theirs, None))
    assert files(theirs) == files(ours)
    assert Shaky.sent["h5"] == sum(len(data) for name, data in files(ours).items() if name.endswith(".h5"))


def test_network_that_errs(ours, tmp_path, monkeypatch):
    """A third of the answers are wrong: what is pulled is right, in as many commands as it takes."""
    monkeypatch.setattr(cache.objects, "PART", 1 << 20)
    go(push(ours, URL, None))
    monkeypatch.setattr(Shaky, "every", 3)
    for _ in range(20):
        try:
            go(pull(URL, tmp_path / "theirs", None))
            break
        except DptrError:
            continue
    assert files(tmp_path / "theirs") == files(ours)
    assert min(Shaky.sent["flipped"], Shaky.sent["short"]) > 0


def test_shards_of_both_ends_are_never_mixed(ours, tmp_path):
    go(push(ours, URL, None))
    go(pull(URL, tmp_path / "theirs", None))
    grow(tmp_path / "theirs")
    with pytest.raises(
        DptrError, match=r"theirs/.*/memories has 1 shards that shaky://bucket/cache/.* lacks, and nothing"
    ):
        pull(URL, tmp_path / "theirs", None)
    go(push(tmp_path / "theirs", URL, None))
    with pytest.raises(
        DptrError, match=r"shaky://bucket/cache/.*/memories has 1 shards that .*ours/.* lacks, and nothing"
    ):
        push(ours, URL, None)
    go(pull(URL, ours, None))
    assert stored() == files(ours)


def test_damage_goes_no_further(ours, tmp_path):
    (shard,) = ours.glob("*/memories/00001.h5")
    flip(shard)
    with pytest.raises(Damaged, match="00001.h5 is damaged: it does not match its checksum"):
        go(push(ours, URL, None))
    flip(shard)
    go(push(ours, URL, None))
    (name,) = (n for n in Shaky.store if n.endswith("memories/00001.h5"))
    whole = Shaky.store[name].getvalue()
    Shaky().pipe_file(name, b"x" + whole[1:])
    with pytest.raises(
        DptrError, match="shaky://bucket/cache/.*/memories/00001.h5 does not match its checksum, and was"
    ):
        go(pull(URL, tmp_path / "theirs", None))
    Shaky().rm(name)  # as the sentence says
    go(push(ours, URL, None))
    go(pull(URL, tmp_path / "theirs", None))
    assert files(tmp_path / "theirs") == files(ours)


def test_wrong_use(ours, tmp_path):
    for wrong, message in (
        (lambda: push(URL, URL, None), "the first argument of push needs a cache on disk"),
        (lambda: pull(URL, URL, None), "the second argument of pull needs a cache on disk"),
        (lambda: push(ours, tmp_path, None), "is not a URL such as s3://bucket/cache"),
        (lambda: push(ours, URL, "x"), "holds no space whose name begins with 'x'"),
        (lambda: pull(URL, tmp_path / "new", None), "shaky://bucket/cache holds no encoder's space"),
        (lambda: push(tmp_path / "new", URL, None), "new holds no encoder's space"),
    ):
        with pytest.raises(WrongUse, match=message):
            wrong()
