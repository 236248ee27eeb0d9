"""The image tower of wordclip: a small vision transformer behind a convolutional stem, registered with timm.

A word is read along its width, so the stem keeps four times as many columns as square patches would: 2 x 32 tokens for
a picture of 32 x 128.
"""

from typing import Any

from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

IMAGE = (32, 128)
STRIDES = ((2, 2), (2, 2), (2, 1), (2, 1))
ROWS, COLUMNS = 2, 32


class ConvStem(nn.Module):
    """Pictures (B, 3, 32, 128) to tokens (B, 64, width), row by row."""

    num_patches = ROWS * COLUMNS

    def __init__(self, embed_dim: int, in_chans: int = 3, **_: Any) -> None:
        super().__init__()
        widths = [in_chans, embed_dim // 4, embed_dim // 2, embed_dim, embed_dim]
        layers: list[nn.Module] = []
        for before, after, stride in zip(widths[:-1], widths[1:], STRIDES, strict=True):
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(embed_dim, embed_dim, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        maps: Tensor = self.layers(pictures)
        return maps.flatten(2).transpose(1, 2)


@register_model
def dptr_word_vit(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """Width 192, 4 layers, a class token. timm's arguments about pretrained weights are ignored: there are none."""
    for name in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
        kwargs.pop(name, None)
    tower = VisionTransformer(
        img_size=IMAGE, embed_layer=ConvStem, embed_dim=192, depth=4, num_heads=3, num_classes=0, **kwargs
    )
    setattr(tower, "default_cfg", {"input_size": (3, *IMAGE)})  # noqa: B010 (torch types attributes as modules)
    return tower
