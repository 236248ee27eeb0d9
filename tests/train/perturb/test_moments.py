"""Kinds that use the statistics of both sides: what becomes of means, deviations and covariances."""

from dataclasses import replace

import pytest
import torch

from cache.errors import WrongUse
from tests.helpers.perturb import material
from train.perturb.grammar import Amount
from train.perturb.material import Material, mean_row_norm
from train.perturb.moments import Collapse, Covariance, Matched, Moments, Shift, root_of

D = 6


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """Rows of text and image tokens that differ in mean, deviation and covariance; and the material of both."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(4000, D, generator=generator) * torch.linspace(0.2, 0.5, D) + torch.linspace(-1, 1, D)
    turn = torch.randn(D, D, generator=generator)
    image = (torch.randn(8000, D, generator=generator) @ turn + 3).view(200, 40, D)
    both = material(tmp_path_factory.mktemp("sides"), text, image)
    return text, image.half().float().flatten(0, 1), both


def moved(part, sides, evaluated=False):
    """The text's rows as a batch of 80 memories, perturbed, as rows again."""
    text, _, both = sides
    part.prepare(both)
    memory = text.view(80, 50, D)
    mask = torch.ones(80, 50, dtype=torch.bool)
    found, same = part.evaluated(memory, mask) if evaluated else part(memory, mask, torch.Generator().manual_seed(1))
    assert same is mask
    assert part(memory.double(), None)[0].dtype == torch.float64
    return found.flatten(0, 1)


def test_statistics_are_those_of_the_rows(sides):
    text, image, both = sides
    assert torch.allclose(both.text.mean, text.double().mean(0).float(), atol=1e-5)
    assert torch.allclose(both.image.deviation, image.double().std(0).float(), rtol=1e-4)
    centred = (image - image.mean(0)).double()
    assert torch.allclose(both.image.covariance.double(), centred.T @ centred / (len(image) - 1), rtol=1e-3, atol=1e-3)
    root = root_of(both.image.covariance)
    assert torch.allclose(root @ root.T, both.image.covariance, rtol=1e-3, atol=1e-3)


def test_shift_moves_the_mean_and_nothing_else(sides):
    text, image, _ = sides
    for share in (1.0, 0.5):
        found = moved(Shift(share), sides)
        assert torch.allclose(found.mean(0), text.mean(0) + share * (image.mean(0) - text.mean(0)), atol=1e-3)
        assert torch.allclose(found.std(0), text.std(0), atol=1e-4)


def test_moments_are_the_images(sides):
    _, image, _ = sides
    found = moved(Moments(), sides)
    assert torch.allclose(found.mean(0), image.mean(0), atol=1e-3)
    assert torch.allclose(found.std(0), image.std(0), rtol=1e-3)


def test_collapse_takes_both_means_away(sides):
    text, image, _ = sides
    part = Collapse(Amount(0.3))
    found = moved(part, sides)
    assert found.mean(0).abs().max() < 0.03
    assert torch.allclose(found.var(0), text.var(0) + 0.09, rtol=0.1)
    assert part.inference(image).mean(0).abs().max() < 1e-3
    assert torch.allclose(moved(part, sides, evaluated=True), text - text.mean(0), atol=1e-5)


def test_covariance_adds_what_images_vary_in_and_text_does_not(sides):
    """Where text varies less in every direction, the outcome has the mean and covariance of images."""
    _, image, both = sides
    found = moved(Covariance(), sides)
    assert torch.allclose(found.mean(0), image.mean(0), atol=0.15)
    values, vectors = torch.linalg.eigh(both.image.covariance - both.text.covariance)
    wanted = both.text.covariance + (vectors * values.clamp(min=0)) @ vectors.T
    assert (torch.cov(found.T) - wanted).abs().max() < 0.06 * wanted.abs().max()
    assert torch.allclose(moved(Covariance(), sides, evaluated=True).mean(0), image.mean(0), atol=1e-3)


def test_matched_noise_has_the_banks_mean_and_covariance(sides):
    text, image, both = sides
    noise = (moved(Matched(Amount(0.5)), sides) - text) / 0.5
    assert torch.allclose(noise.mean(0), image.mean(0), atol=0.15)
    assert (torch.cov(noise.T) - torch.cov(image.T)).abs().max() < 0.06 * torch.cov(image.T).abs().max()
    tenth = moved(Matched(Amount(0.1, True)), sides) - text
    assert mean_row_norm(tenth) == pytest.approx(0.1 * both.norm, rel=0.05)


@pytest.mark.parametrize("part", [Shift(), Moments(), Collapse(Amount(0.3)), Covariance()])
def test_what_is_kept_is_enough_to_read(sides, part):
    _, image, both = sides
    part.prepare(both)
    again = replace(part)
    again.restore(part.kept())
    memory = image[:40].view(4, 10, D)
    assert torch.equal(part.evaluated(memory, None)[0], again.evaluated(memory, None)[0])
    assert torch.equal(part.inference(memory), again.inference(memory))


def test_the_covariance_of_wide_rows_is_refused():
    with pytest.raises(WrongUse, match="up to 1,024"):
        _ = Material(torch.randn(4, 1025)).text.covariance
