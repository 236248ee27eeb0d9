"""A frozen CLIP's image tower: all its tokens, after the final norm and the projection."""

import copy
from typing import Any

import torch
from open_clip.timm_model import TimmModel
from open_clip.transform import PreprocessCfg
from open_clip.transformer import VisionTransformer
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import Tensor, nn

from cache.errors import WrongUse
from pipeline.towers.block import Block, known_blocks


def visual_tower(visual: Any, model: str) -> Any:
    """open_clip's image tower of `model`. WrongUse if it is not a vision transformer pooled at its class token."""
    ours = isinstance(visual, VisionTransformer) and visual.attn_pool is None and visual.pool_type == "tok"
    if not ours and not (isinstance(visual, TimmModel) and _reads_its_class_token(visual.trunk)):
        raise WrongUse(f"{model} has no vision transformer with a class token: choose another model.")
    return visual


class Visual:
    """An image tower on one device."""

    def __init__(self, tower: Any, look: PreprocessCfg, device: torch.device, dtype: torch.dtype) -> None:
        """`tower` comes from `visual_tower`; `look` has the mean and standard deviation that it was trained with."""
        self._dtype = dtype
        self._blocks: list[Block] | None = None
        if isinstance(tower, VisionTransformer) and known_blocks(tower.transformer):
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
        if isinstance(tower, VisionTransformer):
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


def _reads_its_class_token(trunk: Any) -> bool:
    """Whether a timm tower pools by taking its first token, with nothing else before the projection."""
    return (
        isinstance(trunk, TimmVisionTransformer)
        and trunk.global_pool == "token"
        and trunk.num_prefix_tokens == 1
        and isinstance(trunk.fc_norm, nn.Identity)
        and isinstance(trunk.head, nn.Identity)
    )
