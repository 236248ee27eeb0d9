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
from torch.nn import functional as F

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


class Gather(nn.Module):
    """Queries look at each other, then at the picture's tokens, then pass a feed-forward block; all pre-norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_self, self.norm_cross, self.norm_feed = (nn.LayerNorm(width) for _ in range(3))
        self.queries_keys_values, self.self_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.queries, self.keys_values = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.cross_out = nn.Linear(width, width)
        self.feed_in, self.feed_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Queries (B, Q, W) after looking at tokens (B, T, W)."""
        x, queries, keys, values = self._asked(x, tokens)
        x = x + self.cross_out(F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2))
        return torch.as_tensor(x + self.feed_out(F.gelu(self.feed_in(self.norm_feed(x)))))

    def weights(self, x: Tensor, tokens: Tensor) -> Tensor:
        """How much each query looks at each token, as a mean of all heads: (B, Q, T) fp32, rows sum to 1."""
        _, queries, keys, _ = self._asked(x, tokens)
        products = queries @ keys.transpose(2, 3) / queries.shape[-1] ** 0.5
        return products.float().softmax(-1).mean(1)

    def _asked(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The queries after they looked at each other, and what they compare with the tokens."""
        queries, keys, values = self._split(self.queries_keys_values(self.norm_self(x)), 3)
        x = x + self.self_out(F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2))
        (queries,) = self._split(self.queries(self.norm_cross(x)), 1)
        keys, values = self._split(self.keys_values(tokens), 2)
        return x, queries, keys, values

    def _split(self, joint: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(B, heads, T, W / heads) of each part of (B, T, parts * W)."""
        return joint.unflatten(-1, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


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

    def gathered(self, tokens: Tensor) -> Tensor:
        """`forward_features` of `picture_tokens`."""
        queries = self.asked.to(tokens.dtype).expand(len(tokens), -1, -1)
        for layer in self.gather:
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
