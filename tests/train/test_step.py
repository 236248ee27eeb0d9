"""The learning rate of a step."""

import pytest
import torch

from train.step import WARM_UP, one_cycle


@pytest.mark.parametrize("steps", [1, 2, 13, 40, 200])
def test_learning_rate_is_torchs_one_cycle(steps):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.3, steps, pct_start=WARM_UP, cycle_momentum=False)
    for step in range(steps):
        assert one_cycle(step, steps, 0.3) == pytest.approx(cycle.get_last_lr()[0])
        optimizer.step()
        if step + 1 < steps:
            cycle.step()
