"""The last row is repeated up to a picture's number of tokens, in training and in evaluation."""

import pytest
import torch

from train.perturb.trail import Trail


def test_last_rows_are_repeated():
    memory = torch.arange(24.0).view(2, 4, 3)
    mask = torch.tensor([[True, True, False, False], [True, True, True, True]])
    for found, there in (Trail(6)(memory, mask), Trail(6).evaluated(memory, mask)):
        assert torch.equal(found[0, :2], memory[0, :2])
        assert torch.equal(found[0, 2:], memory[0, 1].expand(4, -1))
        assert torch.equal(found[1], memory[1, [0, 1, 2, 3, 3, 3]])
        assert bool(there.all())


def test_longer_memories_stay_and_rows_that_were_left_out_stay_out():
    memory = torch.randn(2, 5, 3)
    mask = torch.tensor([[True, False, True, True, False], [True] * 5])
    found, there = Trail(3)(memory, mask)
    assert there.tolist() == [[True, False, True, True, False], [True] * 5]
    assert torch.equal(found[there], memory[mask])
    found, there = Trail(7)(memory, None)
    assert found.shape == (2, 7, 3)
    assert bool(there.all())


def test_no_rows_are_wrong():
    with pytest.raises(ValueError, match="at least 1"):
        Trail(0)
