"""Shards made by several processes that are killed now and then: the cache is the one that a single process makes."""

import os
import signal
import time

import numpy as np
import pytest

import pipeline.workers.claim as claims
from cache.errors import DptrError
from cache.garbage import find_garbage, remove
from cache.memories import key_of, packed
from cache.space import open_space
from pipeline.embed_text import embed_text, text_task
from pipeline.labels import collect
from pipeline.workers.claim import Watch, claim
from pipeline.workers.crew import Losses, Volunteers
from pipeline.workers.driver import Driver
from pipeline.workers.plan import Job
from tests.helpers.files import flip
from tests.helpers.forks import Forked
from tests.pipeline.test_embed_text import files
from tests.pipeline.workers import job as jobs


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A cache that one process has made, and one made by workers, of which one was killed, and the driver, too."""
    folder = tmp_path_factory.mktemp("workers")
    cache = folder / "cut"
    workers = [Forked(folder / f"worker {n}", jobs.serve, cache, 5.0) for n in range(3)]
    driver = Forked(folder / "driver", jobs.drive_volunteers, cache)
    whole = Forked(folder / "one", jobs.drive, folder / "whole", None)
    workers[0].wait_until("working for")
    time.sleep(0.4)
    workers[0].send_signal(signal.SIGKILL)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    left = sorted(p.name for p in cache.glob("*/job/*"))
    driver = Forked(folder / "driver again", jobs.drive_volunteers, cache)
    ended = [whole.wait(), driver.wait()]
    (folder / "over").touch()
    ended += [worker.wait() for worker in workers]
    assert [one.returncode for one in ended] == [0, 0, -signal.SIGKILL, 0, 0], [one.stderr for one in ended]
    return folder, left, [int(one.stdout.split()[-1]) for one in ended[3:]]


def test_workers_make_the_bytes_of_one_process(made):
    folder, left, _ = made
    assert any(name.endswith(".task") for name in left)  # the driver was killed on the way
    whole, cut = files(folder / "whole"), files(folder / "cut")
    assert cut == whole
    assert sum("memories" in name for name in whole) > 10


def test_each_shard_is_made_by_one_worker(made):
    folder, _, counts = made
    others = ("constants", "corpora")
    shards = sum(n.endswith(".h5") and not any(o in n for o in others) for n in files(folder / "whole"))
    assert shards - 8 <= sum(counts) <= shards  # the others by the worker that was killed
    assert min(counts) > 1


def test_a_claim_is_one_workers_until_it_is_dead(tmp_path):
    path, watch = tmp_path / "one.claim", Watch()
    assert not watch.dead(path)
    mine = claim(path, "me")
    assert mine
    assert claim(path, "other") is None
    assert not watch.dead(path)
    mine.end(finished=True)
    assert watch.dead(path)  # its lock is free, as after a kill
    path.unlink()
    claim(path, "me").end(finished=False)
    assert not path.exists()


def test_a_claim_from_another_machine_is_void_without_a_sign_of_life(tmp_path, monkeypatch):
    """Whatever its clock says."""
    monkeypatch.setattr(claims, "LEASE", 0.2)
    monkeypatch.setattr(claims, "boot", lambda: "another machine")
    path = tmp_path / "one.claim"
    claim(path, "me").end(finished=True)
    monkeypatch.undo()
    monkeypatch.setattr(claims, "LEASE", 0.2)
    watch = Watch()
    for n in range(3):
        os.utime(path, (n, n))
        assert not watch.dead(path)
        time.sleep(0.15)
    time.sleep(0.1)
    assert watch.dead(path)


@pytest.fixture
def wanted(tmp_path, encoder, say):
    """A space, and the driver of two shards of it that nobody has made."""
    embed_text(tmp_path, encoder, collect(["a"]), "words", say)
    space = open_space(tmp_path)
    tasks = [text_task([(key_of(ids), packed(ids))]) for ids in map(encoder.prompt.ids, ("b", "c"))]
    return space, Driver(Volunteers(say), say)(space, space.memories, {"shards": "text"}, iter(tasks))


def crew(monkeypatch, tend):
    """What happens each time the driver looks after its workers."""
    monkeypatch.setattr("pipeline.workers.driver.TEND", 0.0)
    monkeypatch.setattr(Volunteers, "tend", lambda self, made: tend())


def test_a_shard_that_cannot_be_made_stops_the_driver_with_the_reason(wanted, monkeypatch, say):
    space, working = wanted
    name = "000001-0.me.failed"
    crew(monkeypatch, lambda: (space.folder / "job" / name).write_text("worker me cannot make a shard: no room."))
    with pytest.raises(DptrError, match="worker me cannot make a shard: no room"):
        next(working)
    assert any("start dptr worker --cache" in line for line in say.lines)
    garbage = find_garbage(space)
    assert space.folder / "job" in garbage.folders
    remove(garbage)
    assert not (space.folder / "job").exists()


def test_a_task_that_changed_on_the_disk_is_not_done(wanted, monkeypatch):
    space, working = wanted
    seen = []

    def look():
        job = Job(space.folder)
        first, second = (n.removesuffix(".task") for n in job.names() if n.endswith(".task"))
        flip(job.folder / f"{first}.task")
        seen.append((job.task(first, job.work()), job.task(second, job.work())["ids"].tolist()))
        assert job.task(second, b"other work") is None
        raise DptrError("enough")

    crew(monkeypatch, look)
    with pytest.raises(DptrError, match="enough"):
        next(working)
    ((one, other),) = seen
    assert one is None
    assert len(other) > 5


def test_a_shard_of_another_encoder_is_refused(wanted, full_encoder, tmp_path, monkeypatch, say):
    space, working = wanted
    embed_text(tmp_path / "other", full_encoder, collect(["b"]), "words", say)
    other = open_space(tmp_path / "other").memories
    shard = other.image(1, {"keys": np.zeros((1, 16), np.uint8)})

    def leave():
        job = Job(space.folder)
        job.leave(next(n for n in job.names() if n.endswith(".task")).removesuffix(".task"), "me", shard)

    crew(monkeypatch, leave)
    with pytest.raises(DptrError, match="was made by another encoder than its space"):
        next(working)
    assert len(space.memories.entries) == 1


def test_workers_that_die_again_and_again_are_not_started_for_ever():
    losses = Losses()
    for made in range(5):
        losses.count(3, made, 1, "no room")
    with pytest.raises(DptrError, match=r"workers end as soon as they are started \(no room\)"):
        losses.count(1, 4, 1, "no room")
