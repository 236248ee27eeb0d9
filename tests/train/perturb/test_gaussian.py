"""Gaussian noise: how much of it, and on which rows."""

import pytest
import torch

from tests.helpers.perturb import material
from train.perturb.gaussian import Gaussian, Scaled
from train.perturb.grammar import Amount
from train.perturb.material import mean_row_norm


def prepared(part, rows):
    part.prepare(material(None, rows))
    return part


def test_mean_row_norm():
    assert mean_row_norm(torch.tensor([[[3.0, 4.0], [0.0, 1.0]]])) == pytest.approx(3.0)


def test_a_percentage_is_one_of_the_rows_norm():
    memory = torch.randn(50, 40, 64)
    norm = mean_row_norm(memory)
    made = prepared(Gaussian(Amount(0.3, True)), memory.flatten(0, 1))
    moved = made(memory, None, torch.Generator().manual_seed(0))[0] - memory
    assert mean_row_norm(moved) == pytest.approx(0.3 * norm, rel=0.01)
    assert moved.mean().abs() < 0.01  # no direction, and no two rows alike
    assert torch.corrcoef(moved.flatten(0, 1)[:200]).fill_diagonal_(0).abs().max() < 0.6
    again = made(memory, None, torch.Generator().manual_seed(0))[0] - memory
    assert torch.equal(moved, again)
    assert made(memory.half(), None)[0].dtype == torch.float16
    said = f"Gaussian noise, σ = {0.3 * norm / 8:.4g}, which moves rows by 30.0% (mean norm {norm:.3g})"
    assert made.describe() == said


def test_a_number_is_the_deviation_of_each_value():
    made = prepared(Gaussian(Amount(0.2)), torch.randn(100, 64))
    assert float(made(torch.zeros(50, 40, 64), None)[0].std()) == pytest.approx(0.2, rel=0.01)
    assert made.to_dict()["relative"] == pytest.approx(0.2, rel=0.05)


def test_scaled_noise_is_as_strong_as_a_uniform_number_says():
    made = prepared(Scaled(Amount(0.2)), torch.randn(100, 256))
    norms = torch.linalg.vector_norm(made(torch.zeros(100, 80, 256), None)[0], dim=-1) / 16
    deciles = torch.linspace(0.1, 0.9, 9)
    assert torch.allclose((norms / 0.2).quantile(deciles), deciles, atol=0.02)
