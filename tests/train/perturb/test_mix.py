"""Mixtures: rows of text by way of image tokens, as a slow literal computation gives them."""

import torch

from tests.helpers.perturb import material
from train.perturb.mix import Mix

D = 8


def prepared(tmp_path, k=3, tau=20.0):
    generator = torch.Generator().manual_seed(0)
    rows = 5 * torch.randn(30, D, generator=generator)
    part = Mix(k, tau)
    part.prepare(material(tmp_path, rows, torch.randn(6, 5, D, generator=generator)))
    return part, rows


def unit(x):
    return x / x.norm()


def softmax(x):
    return (x - x.max()).exp() / (x - x.max()).exp().sum()


def test_a_row_goes_through_the_nearest_images_and_back(tmp_path):
    part, rows = prepared(tmp_path)
    memory = rows[:6].view(2, 3, D)
    found, mask = part(memory, None)
    assert mask is None
    norm = rows.norm(dim=-1).mean()
    for x, y in zip(rows[:6], found.flatten(0, 1), strict=True):
        close = torch.tensor([float(unit(x) @ i) for i in part.image])
        nearest = close.argsort(descending=True)[:3]
        image = sum(w * part.image[n] for w, n in zip(softmax(20 * close[nearest]), nearest, strict=True))
        back = softmax(20 * torch.stack([unit(image) @ unit(t) for t in rows]))
        mixed = unit(sum(w * unit(t) for w, t in zip(back, rows, strict=True)))
        assert torch.allclose(norm * mixed, y, atol=1e-4)
    assert torch.equal(part.evaluated(memory, None)[0], found)


def test_image_tokens_take_the_same_way_back(tmp_path):
    part, rows = prepared(tmp_path, tau=1000.0)
    tokens = 7 * rows[None, 10:20]
    back = part.inference(tokens)
    wanted = rows[10:20] / rows[10:20].norm(dim=-1, keepdim=True) * rows.norm(dim=-1).mean()
    assert torch.allclose(back[0], wanted, atol=1e-3)  # each is nearest to itself
    again = Mix(3, 1000.0)
    again.restore(part.kept())
    assert torch.equal(again.inference(tokens), back)


def test_mixtures_keep_their_dtype(tmp_path):
    part, _ = prepared(tmp_path)
    memory = torch.randn(2, 3, D)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = part(memory, None)
    assert found.dtype == torch.float32
    assert (found - part(memory, None)[0]).norm() < 0.3 * found.norm()
