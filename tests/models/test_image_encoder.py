"""The image tower: its shapes, how pictures get into it, and what another picture size changes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from models.image_encoder import Convolution, ImageEncoder, VisionConfig, released_vit, stretched

SMALL = VisionConfig((16, 32), (Convolution(24, (4, 8), (4, 8)),), 2, 3, 48, 20, pre_norm=True)


def tower(config=SMALL):
    torch.manual_seed(0)
    return ImageEncoder(config).eval()


def test_released_vit_has_the_released_shape():
    """Width 512, 12 layers, 8 heads, 32 x 128 in patches of 4 x 8: (B, 128, 512); with FMU and decoder 66.5 M."""
    config = released_vit(512)
    assert (config.grid, config.layers, config.heads, config.feed) == ((8, 16), 12, 8, 2048)
    one = ImageEncoder(config)
    assert {m.eps for m in one.modules() if isinstance(m, torch.nn.LayerNorm)} == {torch.nn.LayerNorm(1).eps}
    assert one.positions.shape == (128, 512)
    assert sum(p.numel() for p in one.parameters()) == pytest.approx(66.5e6 - 25.2e6 - 3.15e6, rel=0.01)
    assert one(torch.zeros(2, 3, 32, 128)).shape == (2, 128, 512)


def test_tokens_come_class_token_first_then_row_by_row():
    one = tower()
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.zero_()
        one.stem[0].weight += 1
        one.norm.weight += 1
        one.pre_norm = torch.nn.Identity()
        one.norm = torch.nn.Identity()
        one.project = torch.nn.Identity()
        picture = torch.zeros(1, 3, 16, 32)
        picture[0, :, 4:8, 8:16] = 1.0  # row 1, column 1 of a grid of 4 x 4
        tokens = one(picture)[0, :, 0]
    assert tokens.nonzero()[:, 0].tolist() == [1 + 1 * 4 + 1]


def test_pixels_are_normalised_as_torchvision_does():
    from torchvision.transforms.v2 import functional as V

    config = VisionConfig(**{**SMALL.__dict__, "mean": (0.48, 0.45, 0.4), "std": (0.26, 0.27, 0.28)})
    pixels = torch.randint(0, 256, (2, 3, 16, 32), dtype=torch.uint8)
    expected = V.normalize(pixels.float() / 255, config.mean, config.std)
    assert torch.allclose(tower(config).normalised(pixels), expected, atol=1e-6)


def test_another_size_interpolates_positions_and_keeps_the_rest():
    one = tower()
    other = one.resized((32, 32))
    assert other.config.grid == (8, 4)
    assert other(torch.zeros(1, 3, 32, 32)).shape == (1, 33, 20)
    assert torch.equal(other.positions[0], one.positions[0])  # the class token's own
    grid = one.positions[1:].T.reshape(1, 24, 4, 4)
    expected = F.interpolate(grid, (8, 4), mode="bicubic", antialias=True)
    assert torch.allclose(other.positions[1:], expected.flatten(2)[0].T)
    assert torch.equal(other.blocks[1].feed_in.weight, one.blocks[1].feed_in.weight)
    assert one.resized((16, 32)) is one
    with pytest.raises(ValueError, match="smaller than one patch"):
        one.resized((2, 32))


def test_a_thinner_tower_has_the_first_block_and_the_last_ones():
    one = tower(replace(SMALL, layers=4))
    thin = one.thinned(2)
    pixels = torch.randn(2, 3, 16, 32)
    del one.blocks[1:3]
    assert thin.config == replace(SMALL, layers=2)
    assert torch.equal(thin(pixels), one(pixels))
    for layers in (0, 2, 3):
        with pytest.raises(ValueError, match="the tower has 2 layers"):
            thin.thinned(layers)


def test_configuration_survives_json():
    import json

    config = VisionConfig(
        (8, 16), (Convolution(8, (3, 3), (2, 2), (1, 1)), Convolution(8, (1, 1), (1, 1))), 1, 2, 16, None
    )
    assert VisionConfig.of(json.loads(json.dumps(config.to_dict()))) == config
    assert config.grid == (4, 8)
    assert config.tokens_width == 8


def test_everything_is_initialised():
    first, second = tower(), tower()
    for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert a.abs().max() <= 1, name


def test_tall_pictures_are_turned_to_the_left_if_asked():
    pixels = np.arange(40, dtype=np.uint8).reshape(10, 4, 1).repeat(3, 2)
    tall = Image.fromarray(pixels)
    turned = stretched(tall, (4, 10), turn_tall=True)
    assert torch.equal(turned, torch.from_numpy(np.rot90(pixels).copy()).permute(2, 0, 1))
    short = tall.crop((0, 0, 4, 7))
    assert torch.equal(stretched(short, (4, 10), turn_tall=True), stretched(short, (4, 10)))


def test_pictures_are_stretched_whatever_their_shape():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    made = stretched(Image.fromarray(pixels), (8, 32))
    assert (made.shape, made.dtype) == ((3, 8, 32), torch.uint8)
    same = stretched(Image.fromarray(pixels), (30, 50))
    assert np.array_equal(same.permute(1, 2, 0).numpy(), pixels)
