"""Byte-wise dropout keeps the same share of values as plain dropout, and the same expectation."""

import pytest
import torch

from models.layers import Dropout


@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_share_and_scale(p, dtype):
    torch.manual_seed(0)
    dropped = Dropout(p)(torch.ones(1003, 1001, dtype=dtype))
    kept = dropped != 0
    assert dropped.dtype == dtype
    assert float(kept.float().mean()) == pytest.approx(1 - p, abs=4e-3)
    assert float(dropped.float().mean()) == pytest.approx(1, abs=4e-3)
    # neighbours come from one draw and must not follow each other
    together = (kept[:, 1:] & kept[:, :-1]).float().mean()
    assert float(together) == pytest.approx((1 - p) ** 2, abs=4e-3)


def test_gradient_flows_where_values_do():
    x = torch.ones(1000, requires_grad=True)
    dropped = Dropout(0.5)(x)
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped.detach())


def test_nothing_happens_in_evaluation_or_at_zero():
    x = torch.randn(10)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_follows_the_seed():
    torch.manual_seed(7)
    first = Dropout(0.5)(torch.ones(100))
    torch.manual_seed(7)
    assert torch.equal(first, Dropout(0.5)(torch.ones(100)))
