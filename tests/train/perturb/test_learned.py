"""The network moves rows to where tokens are, by a distance that is computed as its formula says."""

import math
from statistics import median

import torch

from tests.helpers.perturb import material
from train.perturb import learned
from train.perturb.learned import Learned, discrepancy


def test_the_discrepancy_is_the_formulas():
    """Of small samples, pair by pair."""
    a, b = torch.randn(6, 3, dtype=torch.float64), torch.randn(9, 3, dtype=torch.float64) + 1
    rows = [*a.tolist(), *b.tolist()]
    apart = [[sum((p - q) ** 2 for p, q in zip(x, y, strict=True)) for y in rows] for x in rows]
    middle = median(sorted(value for row in apart for value in row))

    def mean(xs, ys):
        pairs = [(x, y) for x in xs for y in ys if x != y]
        widths = (4, 2, 1, 0.5, 0.25)
        return sum(math.exp(-apart[x][y] / (w * middle)) for x, y in pairs for w in widths) / len(pairs) / len(widths)

    expected = mean(range(6), range(6)) + mean(range(6, 15), range(6, 15)) - 2 * mean(range(6), range(6, 15))
    assert abs(float(discrepancy(a, b)) - expected) < 1e-12


def test_samples_of_one_distribution_have_none():
    found = [float(discrepancy(torch.randn(64, 8), torch.randn(64, 8))) for _ in range(200)]
    assert abs(sum(found) / len(found)) < 4 * torch.tensor(found).std() / len(found) ** 0.5


def test_rows_come_to_be_distributed_like_tokens(tmp_path, monkeypatch):
    """More so than by their means alone; the run's own draws are not touched, and the same comes of the same rows."""
    monkeypatch.setattr(learned, "SAMPLE", 128)  # enough in 8 dimensions, for a third of the time
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(1000, 8, generator=generator)
    image = (torch.randn(1000, 8, generator=generator).exp() + 2).view(25, 40, 8)
    both = material(tmp_path, text, image)
    torch.manual_seed(5)
    made = Learned(steps=200)
    made.prepare(both)
    drawn = torch.rand(1)
    assert torch.equal(drawn, torch.manual_seed(5) and torch.rand(1))
    moved, mask = made.evaluated(text.view(20, 50, 8), None)
    assert mask is None
    tokens = image.flatten(0, 1)
    shifted = text + tokens.mean(0) - text.mean(0)
    there, only_means, before = (float(discrepancy(x, tokens)) for x in (moved.flatten(0, 1), shifted, text))
    assert there < only_means / 4 < before / 8
    assert not made.evaluated(text[None], None)[0].requires_grad
    again = Learned()
    again.restore(made.kept())
    assert torch.equal(again.evaluated(text[None], None)[0], made.evaluated(text[None], None)[0])
