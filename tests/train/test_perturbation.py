"""ORP draws: which photographs and which tokens, how often, and what is added. Gaussian noise: how much of it."""

from dataclasses import replace

import pytest
import torch

from cache.errors import WrongUse
from train.perturbation import ORP, Gaussian, mean_row_norm
from train.pretrain import pretrain
from train.pretrain_options import PretrainOptions
from train.run import run_config


def bank(N, T, D=4):
    """Token t of photograph n is n * 100 + t in every dimension, so that a row shows where it came from."""
    rows = torch.arange(N)[:, None] * 100 + torch.arange(T)
    return rows[..., None].expand(N, T, D).half()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("N", "T", "B", "M"), [(20, 30, 8, 12), (3, 5, 8, 12), (1, 1, 4, 6), (8, 12, 8, 12)])
def test_noise_is_a_token_of_the_samples_photograph(shared, N, T, B, M):
    generator = torch.Generator().manual_seed(0)
    perturbed = ORP(bank(N, T), 1.0, shared=shared)(torch.zeros(B, M, 4), generator)
    rows = perturbed[..., 0]
    assert (perturbed == rows[..., None]).all()
    photographs, tokens = rows // 100, rows % 100
    assert (photographs == photographs[:, :1]).all()
    uses = torch.bincount(photographs[:, 0].long(), minlength=N)
    assert uses.max() - uses.min() <= 1  # distinct while they last, then anew
    for row in tokens.long():
        uses = torch.bincount(row, minlength=T)
        assert uses.max() - uses.min() <= 1
    if shared:
        assert (tokens == tokens[0]).all()


def test_positions_drawn_a_sample_differ():
    _, positions = ORP(bank(9, 40), 1.0, shared=False).draw(6, 20)
    assert len({tuple(p) for p in positions.tolist()}) == 6


def test_draws_are_uniform():
    """Each photograph and each token equally often (chi-squared, 9 and 19 degrees, one in a thousand exceeds it)."""
    perturbation, generator = ORP(bank(10, 20), 1.0), torch.Generator().manual_seed(0)
    draws = [perturbation.draw(3, 5, generator) for _ in range(3000)]
    photographs = torch.bincount(torch.cat([p for p, _ in draws]), minlength=10).float()
    tokens = torch.bincount(torch.cat([t for _, t in draws]), minlength=20).float()
    assert float(((photographs - 900) ** 2 / 900).sum()) < 27.9
    assert float(((tokens - 750) ** 2 / 750).sum()) < 43.8


def test_strength_scales_and_memory_keeps_its_dtype():
    memory = torch.randn(4, 6, 4)
    features = torch.randn(10, 20, 4).half()
    generator = torch.Generator().manual_seed(1)
    weak = ORP(features, 0.1)(memory, generator) - memory
    strong = ORP(features, 0.2)(memory, generator.manual_seed(1)) - memory
    assert torch.allclose(2 * weak, strong, atol=1e-5)
    assert weak.dtype == torch.float32


def test_mean_row_norm():
    assert mean_row_norm(torch.tensor([[[3.0, 4.0], [0.0, 1.0]]])) == pytest.approx(3.0)


def test_gaussian_noise_moves_rows_by_its_share_of_their_norm():
    memory = torch.randn(50, 40, 64)
    norm = mean_row_norm(memory)
    generator = torch.Generator().manual_seed(0)
    perturbation = Gaussian(0.3, norm)
    moved = perturbation(memory, generator) - memory
    assert mean_row_norm(moved) == pytest.approx(0.3 * norm, rel=0.01)
    assert moved.mean().abs() < 0.01  # no direction, and no two rows alike
    assert torch.corrcoef(moved.flatten(0, 1)[:200]).fill_diagonal_(0).abs().max() < 0.6
    again = perturbation(memory, torch.Generator().manual_seed(0)) - memory
    assert torch.equal(moved, again)
    assert perturbation(memory.half()).dtype == torch.float16
    assert perturbation.describe() == f"perturbation: Gaussian noise that moves rows by 30.0% (mean norm {norm:.3g})"


def test_noise_from_the_command_is_in_the_runs_configuration(cache, tmp_path):
    options = PretrainOptions(
        ["numbers"], tmp_path / "run", cache=cache, noise=0.5, depth=1, heads=2, batch=32, steps=2, device="cpu",
        precision="fp32",
    )  # fmt: skip
    pretrain(options, print)
    config = run_config(options.out)
    assert config.resolved["orp"]["noise"] == 0.5
    assert config.resolved["orp"]["memory_norm"] > 1
    with pytest.raises(WrongUse, match="--noise must be above 0"):
        pretrain(replace(options, bank="noise", out=tmp_path / "other"), print)
