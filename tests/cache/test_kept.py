"""The folder of parts stays within its size, keeps what this process used, and loses nothing but time."""

import os
import time

import pytest

from cache.errors import WrongUse
from cache.kept import Kept, kept_here


def size(folder):
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def put(kept, first, last):
    for n in range(first, last):
        kept.put(f"shard/{n}", bytes([n % 256]) * 100)


def test_what_was_put_comes_back_from_any_process(tmp_path):
    put(Kept(tmp_path, 10_000), 0, 5)
    other = Kept(tmp_path, 10_000)
    assert [other.get(f"shard/{n}") for n in range(6)] == [*(bytes([n]) * 100 for n in range(5)), None]


def test_it_never_exceeds_its_size_and_keeps_what_came_first(tmp_path):
    kept = Kept(tmp_path, 5_050)
    put(kept, 0, 200)
    assert size(tmp_path) == 5_000
    assert [n for n in range(200) if kept.get(f"shard/{n}")] == list(range(50))


def test_what_nobody_used_since_this_process_began_makes_room_the_oldest_first(tmp_path):
    put(Kept(tmp_path, 5_000), 0, 50)
    for n in range(50):
        os.utime(tmp_path / "shard" / str(n), (time.time() - 1000 + n,) * 2)
    kept = Kept(tmp_path, 5_000)
    assert kept.get("shard/3")
    put(kept, 100, 110)
    assert size(tmp_path) <= 5_000
    left = [n for n in range(50) if (tmp_path / "shard" / str(n)).exists()]
    assert left == [3, *range(11, 50)]


def test_a_disk_that_refuses_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    kept = Kept(tmp_path / "file" / "folder", 1_000)
    kept.put("shard/0", b"x")
    assert kept.get("shard/0") is None


def test_size_and_folder_are_the_environment_s(tmp_path, monkeypatch):
    monkeypatch.setenv("DPTR_DISK", str(tmp_path))
    monkeypatch.setenv("DPTR_DISK_SIZE", "1.5k")
    put(kept_here(), 0, 100)
    assert size(tmp_path) == 1_500
    monkeypatch.setenv("DPTR_DISK_SIZE", "much")
    with pytest.raises(WrongUse, match="DPTR_DISK_SIZE must be a size such as 20G or 500M, not 'much'"):
        kept_here()
