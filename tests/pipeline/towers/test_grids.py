"""Tokens of towers without a class token, each compared with a literal reading of its own pooling, cell by cell."""

import json
from functools import cache

import numpy as np
import open_clip
import pytest
import torch
from torch.nn import functional as F

from cache.space import open_space
from pipeline.embed_images import embed_images
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from pipeline.neighbours import neighbours
from tests.conftest import TINY
from tests.helpers.pictures import picture

TOWERS = {
    "resnet": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64},
    "clipa": {**TINY["vision_cfg"], "pool_type": "avg", "final_ln_after_pool": True},
    "averages": {**TINY["vision_cfg"], "pool_type": "avg"},
    "convnext": {"timm_model_name": "convnext_atto", "timm_pool": "", "timm_proj": "linear", "image_size": 64},
    "convnext_d": {"timm_model_name": "convnext_atto", "timm_pool": "", "timm_proj": "mlp", "image_size": 64},
    "mobileclip": {"timm_model_name": "fastvit_mci0", "timm_pool": "avg", "timm_proj": None, "image_size": 64},
    "eva02": {"timm_model_name": "eva02_tiny_patch14_224", "timm_pool": "token", "timm_proj": None, "image_size": 84},
    "pe-core": {
        "timm_model_name": "vit_pe_core_tiny_patch16_384", "timm_pool": "map", "timm_proj": None, "image_size": 96,
    },
    "words": {"image_size": [32, 128], "timm_model_name": "dptr_word_vit", "timm_pool": "avg", "timm_proj": "linear"},
}  # fmt: skip
TOKENS = {
    "resnet": 4, "clipa": 16, "averages": 16, "convnext": 4, "convnext_d": 4, "mobileclip": 4, "eva02": 36,
    "pe-core": 36, "words": 64,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towers")
    for name, vision in TOWERS.items():
        (folder / f"grid-{name}.json").write_text(json.dumps({**TINY, "vision_cfg": vision}))
    open_clip.add_model_config(folder)


@cache
def encoder_of(name):
    encoder = Encoder(f"grid-{name}", "untrained:1", precision="fp32")
    if name in ("eva02", "pe-core"):  # whose names say a larger size
        encoder.model.visual.set_input_size(TOWERS[name]["image_size"])
    return encoder


def pooled_and_grid(model, pictures, monkeypatch):
    """open_clip's feature (B, E), and the grid before its pooling, (B, N, C)."""
    tower, seen = model.visual, []
    if hasattr(tower, "trunk"):
        compute, first = tower.trunk.forward_features, getattr(tower.trunk, "num_prefix_tokens", 0)

        def keep(*given, **more):
            seen.append(compute(*given, **more))
            return seen[0]

        monkeypatch.setattr(tower.trunk, "forward_features", keep)
    else:
        module, first = tower.layer4 if hasattr(tower, "layer4") else tower.transformer, 1
        module.register_forward_hook(lambda *given: seen.append(given[2]))
    pooled = model.encode_image(pictures)
    return pooled, seen[0].flatten(2).transpose(1, 2) if seen[0].ndim == 4 else seen[0][:, first:]


def attends_to_itself(pool, cells):
    """The attention pool's own attention over all cells (N, C), without positions, where each sees itself alone."""
    N, C = cells.shape
    x = cells[:, None]
    biases = torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias])
    hidden = ~torch.eye(N, dtype=torch.bool)
    found, _ = F.multi_head_attention_forward(
        x, x, x, C, pool.num_heads, None, biases, None, None, False, 0.0, pool.c_proj.weight, pool.c_proj.bias,
        training=False, need_weights=False, attn_mask=hidden, use_separate_proj_weight=True,
        q_proj_weight=pool.q_proj.weight, k_proj_weight=pool.k_proj.weight, v_proj_weight=pool.v_proj.weight,
    )  # fmt: skip
    return found[:, 0]


def map_of_one(pool, cell):
    """timm's latent attention pool (C,) of one cell, whose weight is 1."""
    value = F.linear(cell, pool.kv.weight, pool.kv.bias)[len(cell) :]
    x = F.linear(value, pool.proj.weight, pool.proj.bias)
    return x + pool.mlp(pool.norm(x))


def by_hand(name, tower, cells):
    """Each cell (C,) of (N, C) projected by the tower's own weights."""
    if name == "resnet":
        return attends_to_itself(tower.attnpool, cells)
    rows = []
    for cell in cells:
        if name in ("clipa", "averages"):
            ln = tower.ln_post
            rows.append(F.layer_norm(cell, cell.shape, ln.weight, ln.bias, ln.eps) @ tower.proj)
        elif name.startswith("convnext"):
            ln = tower.trunk.head.norm
            cell = F.layer_norm(cell, cell.shape, ln.weight, ln.bias, ln.eps)
            mlp = getattr(tower.head, "mlp", None)
            rows.append(mlp.fc2(F.gelu(mlp.fc1(cell))) if mlp else tower.head.proj.weight @ cell)
        elif name == "mobileclip":
            rows.append(tower.trunk.head.fc.weight @ cell + tower.trunk.head.fc.bias)
        elif name == "pe-core":
            rows.append(tower.trunk.head(tower.trunk.fc_norm(map_of_one(tower.trunk.attn_pool, cell))))
        else:
            last = tower.trunk.head if name == "eva02" else tower.head.proj
            rows.append(F.linear(tower.trunk.fc_norm(cell), last.weight, last.bias))
    return torch.stack(rows)


def stirred(tower, pictures):
    """Towers that were never trained hardly look at the picture: scales are near zero, norms have no statistics."""
    for kind, weight in tower.named_parameters():
        if "gamma" in kind or kind.endswith("bn3.weight"):
            weight.data.fill_(0.5)
    norms = [module for module in tower.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.train().momentum = 1.0
    if norms:
        with torch.no_grad():
            tower(pictures)
    for norm in norms:
        norm.eval()


@pytest.mark.parametrize("name", TOWERS)
def test_tokens_are_the_pooled_feature_and_each_cell_projected_alone(name, monkeypatch):
    encoder = encoder_of(name)
    visual, size = encoder.model.visual, encoder.preprocess_config.input_size
    pictures = torch.randn(2, *size, generator=torch.Generator().manual_seed(0))
    stirred(visual, pictures)
    tokens = torch.from_numpy(encoder.image_tokens(pictures)).float()
    assert tokens.shape == (2, 1 + TOKENS[name], 64)
    assert encoder.image_shape() == tokens.shape[1:]
    with torch.no_grad():
        pooled, grid = pooled_and_grid(encoder.model, pictures, monkeypatch)
        cells = by_hand(name, visual, grid[-1])
    expected = torch.cat([pooled[-1:], cells])
    scale = expected.abs().max()
    assert (tokens[-1] - expected).abs().max() < 2e-3 * scale
    assert (tokens[0, 0] - pooled[0]).abs().max() < 2e-3 * scale
    assert (cells[0] - cells[1]).abs().max() > 1e-2 * scale  # cells differ, or the test says nothing
    if name == "mobileclip":
        assert (tokens[:, 1:].mean(1) - tokens[:, 0]).abs().max() < 2e-3 * scale


def test_the_fingerprint_says_what_tokens_are(encoder):
    said = {name: encoder_of(name).fingerprint.preprocess.get("tokens") for name in ("resnet", "convnext", "eva02")}
    for name in ("resnet", "convnext"):
        assert said[name].startswith("the pooled feature, then each cell of the grid")
    assert said["eva02"] is None  # a class token, then patches, as ever
    assert "tokens" not in encoder.fingerprint.preprocess


def test_bank_of_a_resnet(tmp_path, say):
    resnet = encoder_of("resnet")
    done = embed_images(tmp_path, resnet, [(f"{n}.png", picture(n)) for n in range(4)], 4, "photos", say)
    assert done.shape == [5, 64]
    space = open_space(tmp_path)
    with torch.no_grad():
        pixels = torch.stack([resnet.pixels(picture(n)) for n in range(4)])
        look = resnet.preprocess_config
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (look.mean, look.std))
        expected = resnet.model.encode_image((pixels / 255 - mean) / std).numpy()
    assert np.abs(space.bank("photos").features()[:, 0] - expected).max() < 4e-3 * np.abs(expected).max()
    embed_text(tmp_path, resnet, collect(["street", "EXIT"]), "words", say)
    assert neighbours(open_space(tmp_path), "words", "photos", 2, say).new == 2
