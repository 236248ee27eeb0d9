"""The learning rate of a step, and how often steps are followed by an evaluation."""

import pytest
import torch

from train.step import WARM_UP, eval_every, one_cycle


@pytest.mark.parametrize("steps", [1, 2, 13, 40, 200])
def test_learning_rate_is_torchs_one_cycle(steps):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.3, steps, pct_start=WARM_UP, cycle_momentum=False)
    for step in range(steps):
        assert one_cycle(step, steps, 0.3) == pytest.approx(cycle.get_last_lr()[0])
        optimizer.step()
        if step + 1 < steps:
            cycle.step()


def test_evaluations_come_after_each_tenth_of_a_run_or_ten_steps():
    assert [eval_every(None, steps) for steps in (1, 99, 119, 600)] == [10, 10, 11, 60]
    assert eval_every(2, 600) == 2
