"""The image towers of wordclip: small vision transformers behind a convolutional stem, registered with timm.

A word is read along its width, so the stem keeps four times as many columns as square patches would: 2 x 32 tokens for
a picture of 32 x 128. The second wordclip's tower goes on: learned queries gather one token for each character, in
order, as the method's FMU does behind the image encoder. So a picture's tokens are laid out like its text's.
"""

from typing import Any

import torch
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from models.gather import Gather

IMAGE = (32, 128)
STRIDES = ((2, 2), (2, 2), (2, 1), (2, 1))
ROWS, COLUMNS = 2, 32
QUERIES = 32  # characters of the longest word, its closing quote and end included


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


class WordReader(VisionTransformer):
    """A vision transformer whose features are its class token and one token for each query."""

    def __init__(self, layers: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        width, heads = int(kwargs["embed_dim"]), int(kwargs["num_heads"])
        self.asked = nn.Parameter(torch.empty(QUERIES, width))
        self.gather = nn.ModuleList(Gather(width, heads) for _ in range(layers))
        self.norm_queries = nn.LayerNorm(width)
        nn.init.trunc_normal_(self.asked, std=0.02)

    def picture_tokens(self, x: Tensor) -> Tensor:
        """(B, 1 + 64, W): the class token, then the picture's, row by row, normed."""
        return super().forward_features(x)

    def forward_features(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """(B, 1 + QUERIES, W). The other arguments are timm's, for towers that can be masked."""
        return self.gathered(self.picture_tokens(x))

    def gathered(self, tokens: Tensor, looks: list[Tensor] | None = None) -> Tensor:
        """`forward_features` of `picture_tokens`; what queries look at is appended to `looks`, if given."""
        queries = self.asked.to(tokens.dtype).expand(len(tokens), -1, -1)
        layer: Any
        for layer in self.gather:
            if looks is not None:
                looks.append(layer.weights(queries, tokens[:, 1:]))
            queries = layer(queries, tokens[:, 1:])
        return torch.cat([tokens[:, :1], self.norm_queries(queries)], 1)


@register_model
def dptr_word_reader(pretrained: bool = False, **kwargs: Any) -> WordReader:
    """Width 256, 6 layers, a class token, and 2 layers of queries."""
    for name in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
        kwargs.pop(name, None)
    tower = WordReader(
        2, img_size=IMAGE, embed_layer=ConvStem, embed_dim=256, depth=6, num_heads=4, num_classes=0, **kwargs
    )
    setattr(tower, "default_cfg", {"input_size": (3, *IMAGE)})  # noqa: B010 (torch types attributes as modules)
    return tower
