"""A frozen CLIP's image tower: all its tokens, after the final norm and the projection."""

import copy
from typing import Any

import torch
from open_clip.transform import PreprocessCfg
from open_clip.transformer import VisionTransformer
from torch import Tensor

from cache.errors import WrongUse
from pipeline.towers.block import Block, known_blocks
from pipeline.towers.grids import grid_tokens, has_class_token, has_grid


def visual_tower(visual: Any, model: str) -> Any:
    """open_clip's image tower of `model`. WrongUse if it has neither a class token nor a grid of features."""
    if not has_class_token(visual) and not has_grid(visual):
        raise WrongUse(f"{model} has an image tower without a grid of features: choose another model.")
    return visual


class Visual:
    """An image tower on one device."""

    def __init__(self, tower: Any, look: PreprocessCfg, device: torch.device, dtype: torch.dtype) -> None:
        """`tower` comes from `visual_tower`; `look` has the mean and standard deviation that it was trained with."""
        self._dtype = dtype
        self._blocks: list[Block] | None = None
        if isinstance(tower, VisionTransformer) and has_class_token(tower) and known_blocks(tower.transformer):
            self._blocks = [Block(b, device, dtype) for b in tower.transformer.resblocks]
        self._tower = copy.deepcopy(tower).to(device, dtype)
        self._mean, self._std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (look.mean, look.std))

    def __call__(self, pictures: Tensor) -> Tensor:
        """Tokens (B, T, E), class token first, of pictures (B, 3, H, W): uint8, or floats already normalised.

        On the way to a GPU, uint8 is a quarter of the bytes of floats.
        """
        tower, x = self._tower, pictures
        if x.dtype == torch.uint8:
            x = (x.float() / 255 - self._mean) / self._std
        x = x.to(self._dtype)
        if not has_class_token(tower):
            x = grid_tokens(tower, x)
        elif isinstance(tower, VisionTransformer):
            x = tower._embeds(x)
            if self._blocks is None:
                x = tower.transformer(x)
            else:
                for block in self._blocks:
                    x, _ = block(x)
            x = tower.ln_post(x) @ tower.proj
        else:
            x = tower.head(tower.trunk.forward_features(x))
        return torch.as_tensor(x)
