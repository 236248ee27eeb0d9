"""Three ways to read a bank: the same draws from the same photographs, or an even share of them in time."""

from contextlib import ExitStack, closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import train.perturb.photographs as module
from cache.bank import Bank
from cache.errors import Damaged, WrongUse
from tests.helpers.files import flip
from tests.helpers.fingerprint import ONE
from train.perturb import perturbation
from train.perturb.material import Material
from train.perturb.photographs import HowToRead, photographs_of

CPU, T, D = torch.device("cpu"), 5, 3


def bank_of(folder, sizes):
    """Token t of photograph n is n + t / 8 in every dimension."""
    bank, start = Bank(folder / "bank", ONE), 0
    for size in sizes:
        rows = np.arange(start, start + size)[:, None] + np.arange(T) / 8
        keys = np.array([f"{start + n:016}" for n in range(size)], "S16")
        bank.add([f"{key}" for key in keys], keys, np.repeat(rows[..., None], D, -1).astype(np.float16), "")
        start += size
    return Bank(folder / "bank", ONE)


@pytest.fixture
def streamed():
    """Makes what `photographs_of` does, and closes it."""
    with ExitStack() as stack:
        yield lambda *asked: stack.enter_context(closing(photographs_of(*asked)))


def held_at(found, batch):
    found.advance(batch)
    return found.features[:, 0, 0].int().tolist()


@pytest.mark.parametrize("shared", [True, False])
def test_mapped_gathers_what_resident_does(tmp_path, shared):
    bank = bank_of(tmp_path, [7, 1, 9])
    resident, mapped = (photographs_of(bank, CPU, HowToRead(reader)) for reader in ("resident", "mapped"))
    photographs, positions = torch.randint(17, (40,)), torch.randint(T, (8,) if shared else (40, 8))
    found = mapped.gather(photographs, positions)
    assert found.dtype == torch.float16
    assert torch.equal(found, resident.gather(photographs, positions))
    assert torch.equal(found[..., 0].float(), photographs[:, None] + positions / 8)
    assert (mapped.total, mapped.count, mapped.tokens) == (17, 17, T)


def test_a_part_moves_through_the_whole_bank(tmp_path, monkeypatch, streamed):
    """Each photograph is held for as many batches as another, whatever the shards, but for the stays at both ends."""
    monkeypatch.setattr(module, "RENEWED", 2)
    monkeypatch.setattr(module, "POOL_BYTES", 6 * T * D * 2)
    bank = bank_of(tmp_path, [3, 11, 6])
    found = streamed(bank, CPU, HowToRead("streamed"))
    assert (found.total, found.count) == (20, 6)
    counts = np.zeros(20, int)
    for batch in range(300):
        before, now = found.features[:, 0, 0].int().tolist(), held_at(found, batch)
        assert batch == 0 or sum(a != b for a, b in zip(before, now, strict=True)) <= 2
        np.add.at(counts, now, 1)
    assert counts.sum() == 1800
    assert counts.max() - counts.min() <= 6  # a stay is three batches


@settings(max_examples=25)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5), start=st.integers(0, 20), seed=st.integers(0, 5))
def test_what_is_held_depends_on_seed_and_batch_alone(tmp_path_factory, sizes, start, seed):
    bank = bank_of(tmp_path_factory.mktemp("bank"), sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "RENEWED", 2)
        patch.setattr(module, "POOL_BYTES", 4 * T * D * 2)
        going, fresh = (photographs_of(bank, CPU, HowToRead("streamed", (seed, 0))) for _ in range(2))
        with closing(going), closing(fresh):
            first = held_at(going, 0)
            for batch in range(start + 1):
                there = held_at(going, batch)
            assert held_at(fresh, start) == there
            assert held_at(fresh, start) == there  # asked again
            assert held_at(going, 0) == first
            going.close()
            assert held_at(going, start) == there
            assert set(there) <= set(range(sum(sizes)))


def test_seeds_hold_other_photographs(tmp_path, streamed):
    bank = bank_of(tmp_path, [40, 40])
    held = [held_at(streamed(bank, CPU, HowToRead("streamed", seed)), 3) for seed in ((0, 0), (0, 1), (1, 0))]
    assert len(set(map(tuple, held))) == 3


def test_auto_goes_by_size_and_says_so(tmp_path, monkeypatch):
    bank = bank_of(tmp_path, [20])
    assert photographs_of(bank, CPU, HowToRead()).about.startswith("resident: ")
    monkeypatch.setattr(module, "free_memory", lambda device: bank.bytes)
    assert "more than half of" in photographs_of(bank, CPU, HowToRead()).about
    assert photographs_of(bank, CPU, HowToRead()).name == "streamed"
    assert photographs_of(bank, CPU, HowToRead(particular=True)).name == "mapped"


def test_kinds_that_choose_photographs_are_not_streamed(tmp_path):
    bank = bank_of(tmp_path, [20])
    with pytest.raises(WrongUse, match="draws particular ones: choose mapped"):
        photographs_of(bank, CPU, HowToRead("streamed", particular=True))
    for kind, particular in {"orp": False, "nearest": True, "far": True, "spread": True, "gaussian(1)": False}.items():
        assert any(part.particular for part in perturbation(kind, "bank").parts) == particular


@pytest.mark.parametrize("reader", ["resident", "mapped", "streamed"])
def test_a_damaged_shard_is_named(tmp_path, reader, streamed):
    bank = bank_of(tmp_path, [20, 20])
    flip(bank.folder / bank.entries[1].shard, bank.entries[1].datasets["features"].offset)
    with pytest.raises(Damaged, match=bank.entries[1].shard):
        streamed(bank, CPU, HowToRead(reader)).advance(0)


def test_orp_adds_tokens_of_what_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "POOL_BYTES", 16 * T * D * 2)
    bank = bank_of(tmp_path, [50, 50])
    made = perturbation("orp(1)", "bank")
    made.prepare(Material(torch.ones(3, D), bank, how=replace(HowToRead(), reader="streamed")))
    for batch in range(20):
        made.source.advance(batch)
        moved, _ = made(torch.zeros(16, 4, D), None)
        held = set(made.parts[0].photographs.features[:, 0, 0].int().tolist())
        assert set(moved[..., 0].int().flatten().tolist()) == held  # 16 of 16, each once
    made.source.close()
    assert made.source.name == "streamed"
    assert made.parts[0].to_dict()["at a time"] == 16
    assert "100 photographs of 5 tokens (streamed: as --bank-reader says; 16 at a time" in made.describe()
