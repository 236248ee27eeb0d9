"""Image towers without a class token: the pooled feature takes its place, and each cell of the grid is a token.

A cell is projected to where the pooled feature is, as if it were the whole picture: it goes through the tower's pooling
and projection alone. So if a tower averages and then projects linearly, the pooled feature is the mean of the tokens.
In an attention pool a cell attends to itself only, which leaves the projections of values and of the output, as in
MaskCLIP (arXiv 2112.01071).

Shape letters: B batch, C channels, N cells, E width of the tokens.
"""

from typing import Any

import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import Tensor, nn

from cache.errors import WrongUse

TOKENS = "the pooled feature, then each cell of the grid through the pooling and the projection alone"


def has_class_token(visual: Any) -> bool:
    """Whether an image tower of open_clip is a vision transformer that is pooled by taking its class token.

    In one of timm's, nothing else may come before the projection.
    """
    if isinstance(visual, VisionTransformer):
        return visual.attn_pool is None and visual.pool_type == "tok"
    trunk = visual.trunk if isinstance(visual, TimmModel) else None
    return (
        isinstance(trunk, TimmVisionTransformer)
        and trunk.global_pool == "token"
        and trunk.num_prefix_tokens == 1
        and isinstance(trunk.fc_norm, nn.Identity)
        and isinstance(trunk.head, nn.Identity)
    )


def has_grid(visual: Any) -> bool:
    """Whether `grid_tokens` knows the image tower."""
    if isinstance(visual, VisionTransformer):
        return visual.attn_pool is None and visual.pool_type == "avg"
    return isinstance(visual, ModifiedResNet) or (isinstance(visual, TimmModel) and not hasattr(visual.head, "pool"))


def said_of_tokens(visual: Any) -> dict[str, str]:
    """What the fingerprint says of a tower's tokens; nothing for a class token and the patches after it."""
    trunk = getattr(visual, "trunk", None)
    return {} if has_class_token(visual) or getattr(trunk, "global_pool", "") == "token" else {"tokens": TOKENS}


def grid_tokens(visual: Any, x: Tensor) -> Tensor:
    """Tokens (B, 1 + N, E) of normalised pictures (B, 3, H, W). WrongUse if the tower's features are no grid."""
    if isinstance(visual, VisionTransformer):
        return _averaged(visual, x)
    return _resnet(visual, x) if isinstance(visual, ModifiedResNet) else _timm(visual, x)


def _averaged(visual: Any, x: Tensor) -> Tensor:
    x = visual.transformer(visual._embeds(x))
    pooled, _ = visual._pool(x)
    return torch.as_tensor(torch.cat([pooled[:, None], visual.ln_post(x[:, 1:])], 1) @ visual.proj)


def _resnet(visual: Any, x: Tensor) -> Tensor:
    x = visual.stem(x)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = layer(x)
    pool = visual.attnpool
    cells = pool.c_proj(pool.v_proj(x.flatten(2).transpose(1, 2)))  # without positions, which only say where to look
    return torch.cat([pool(x)[:, None], cells], 1)


def _timm(visual: Any, x: Tensor) -> Tensor:
    trunk = visual.trunk
    x = trunk.forward_features(x)
    pooled = visual.head(trunk.forward_head(x))
    if x.ndim == 4:
        rows_first = getattr(trunk, "output_fmt", "NCHW") == "NHWC"
        cells = x.flatten(1, 2) if rows_first else x.flatten(2).transpose(1, 2)  # (B, N, C)
        one = cells.flatten(0, 1)[:, None, None] if rows_first else cells.flatten(0, 1)[:, :, None, None]
    elif x.ndim == 3:
        ahead = getattr(trunk, "num_prefix_tokens", 0)  # a class token, registers
        cells, one = x[:, ahead:], x[:, ahead:].flatten(0, 1)[:, None]
        if trunk.global_pool != "token" and not getattr(trunk, "pool_include_prefix", False):
            one = torch.cat([one.expand(-1, ahead, -1), one], 1)  # the pooling drops so many
    else:
        raise WrongUse(f"the features of {type(trunk).__name__} are no grid: choose another model.")
    projected = visual.head(trunk.forward_head(one)).unflatten(0, cells.shape[:2])
    return torch.cat([pooled[:, None], projected], 1)
