"""A short run of every kind of fault; `make faults` is the long one."""

import json

import pytest

from tests.helpers.forks import Forked


@pytest.fixture(scope="module")
def happened(tmp_path_factory):
    """In a process of its own, because it forks: with one thread, and no patches of other tests."""
    asked = "--kills 3 --calls 4 --stride 14 --disks 100000 --mutations 120 --sequences 4 --replaced 41 --workers 4"
    asked += " --words 100"
    folder = tmp_path_factory.mktemp("faults")
    done = Forked.module(folder, "tests.faults", *asked.split(), TQDM_DISABLE="1").wait()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_killed_job_goes_on_to_the_same_bytes(happened):
    assert happened["kills"]["kills"] >= 3
    assert happened["calls"]["kills"] >= 4
    assert happened["calls"]["finished byte-identical"] >= 4


def test_refused_calls_lose_nothing(happened):
    refused = {name for name, count in happened["stride"].items() if name.startswith("refused ") and count}
    assert {"refused write", "refused fsync", "refused rename"} <= refused


def test_full_disk_loses_nothing(happened):
    if "not permitted to mount" in happened["disks"]:
        pytest.skip("mounting a small disk needs root")
    assert happened["disks"]["full disks told"] >= 3


def test_no_damage_goes_unnoticed(happened):
    assert happened["mutations"]["named by verify"] > 100
    assert happened["mutations"]["repaired and made again"] >= 2


def test_what_is_replaced_is_the_old_or_the_new(happened):
    assert min(happened["replaced"]["old"], happened["replaced"]["new"]) >= 2


def test_workers_and_driver_that_are_killed_make_the_bytes_of_one_process(happened):
    assert happened["workers"]["finished byte-identical"] >= 1


def test_any_sequence_ends_in_the_plain_cache(happened):
    assert happened["sequences"]["sequences"] >= 4
