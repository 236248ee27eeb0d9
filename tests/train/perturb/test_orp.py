"""ORP draws: which photographs and which tokens, how often, and what is added."""

import pytest
import torch

from tests.helpers.perturb import material
from train.perturb.grammar import Amount
from train.perturb.orp import ORP


def bank(N, T, D=4):
    """Token t of photograph n is n * 100 + t in every dimension, so that a row shows where it came from."""
    rows = torch.arange(N)[:, None] * 100 + torch.arange(T)
    return rows[..., None].expand(N, T, D).half()


def orp(tmp_path, features, strength=1.0, rows=None, **more):
    made = ORP(strength if isinstance(strength, Amount) else Amount(strength), **more)
    made.prepare(material(tmp_path, torch.ones(3, features.shape[-1]) if rows is None else rows, features))
    return made


@pytest.mark.parametrize("positions", ["shared", "sample"])
@pytest.mark.parametrize(("N", "T", "B", "M"), [(20, 30, 8, 12), (3, 5, 8, 12), (1, 1, 4, 6), (8, 12, 8, 12)])
def test_noise_is_a_token_of_the_samples_photograph(tmp_path, positions, N, T, B, M):
    generator = torch.Generator().manual_seed(0)
    perturbed, _ = orp(tmp_path, bank(N, T), positions=positions)(torch.zeros(B, M, 4), None, generator)
    rows = perturbed[..., 0]
    assert (perturbed == rows[..., None]).all()
    photographs, tokens = rows // 100, rows % 100
    assert (photographs == photographs[:, :1]).all()
    uses = torch.bincount(photographs[:, 0].long(), minlength=N)
    assert uses.max() - uses.min() <= 1  # distinct while they last, then anew
    for row in tokens.long():
        uses = torch.bincount(row, minlength=T)
        assert uses.max() - uses.min() <= 1
    if positions == "shared":
        assert (tokens == tokens[0]).all()


def test_positions_drawn_a_sample_differ(tmp_path):
    _, positions = orp(tmp_path, bank(9, 40), positions="sample").draw(6, 20)
    assert len({tuple(p) for p in positions.tolist()}) == 6


def test_draws_are_uniform(tmp_path):
    """Each photograph and each token equally often (chi-squared, 9 and 19 degrees, one in a thousand exceeds it)."""
    perturbation, generator = orp(tmp_path, bank(10, 20)), torch.Generator().manual_seed(0)
    draws = [perturbation.draw(3, 5, generator) for _ in range(3000)]
    photographs = torch.bincount(torch.cat([p for p, _ in draws]), minlength=10).float()
    tokens = torch.bincount(torch.cat([t for _, t in draws]), minlength=20).float()
    assert float(((photographs - 900) ** 2 / 900).sum()) < 27.9
    assert float(((tokens - 750) ** 2 / 750).sum()) < 43.8


def test_strength_scales_and_memory_keeps_its_dtype_and_mask(tmp_path):
    memory, mask = torch.randn(4, 6, 4), torch.ones(4, 6, dtype=torch.bool)
    features = torch.randn(10, 20, 4).half()
    generator = torch.Generator().manual_seed(1)
    weak, same = orp(tmp_path / "a", features, 0.1)(memory, mask, generator)
    strong, _ = orp(tmp_path / "b", features, 0.2)(memory, mask, generator.manual_seed(1))
    assert torch.allclose(2 * (weak - memory), strong - memory, atol=1e-5)
    assert weak.dtype == torch.float32
    assert same is mask


def test_a_percentage_is_one_of_the_rows_norm(tmp_path):
    rows, features = 3 * torch.randn(500, 64), torch.randn(20, 30, 64).half()
    made = orp(tmp_path, features, Amount(0.1, True), rows)
    memory = torch.zeros(50, 20, 64)
    moved = torch.linalg.vector_norm(made(memory, None)[0], dim=-1).mean()
    assert float(moved) == pytest.approx(0.1 * float(torch.linalg.vector_norm(rows, dim=-1).mean()), rel=0.02)
    assert made.to_dict()["relative"] == pytest.approx(0.1)
    assert made.to_dict()["lambda"] == pytest.approx(0.3, rel=0.02)
    assert f"λ = {made.factor:.4g}, which moves rows by 10.0%" in made.describe()


def test_released_draw_from_numbers_of_before(tmp_path):
    """The order in which random numbers are taken is part of every run's result."""
    made = orp(tmp_path, bank(10, 20))
    photographs, positions = made.draw(3, 5, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    assert photographs.tolist() == torch.rand(1, 1, 10, generator=generator).argsort(-1)[0, 0, :3].tolist()
    assert positions.tolist() == torch.rand(1, 1, 20, generator=generator).argsort(-1)[0, 0, :5].tolist()
