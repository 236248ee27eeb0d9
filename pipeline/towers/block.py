"""A layer of a frozen transformer, rebuilt from open_clip's for speed: fewer passes over memory, the same values.

Shape letters: C rows, S positions of a row, P positions before them, H heads, d width of a head, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from open_clip.transformer import LayerScale, ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

QUICK = 1.702  # QuickGELU(x) = x sigmoid(1.702 x)


@dataclass(frozen=True)
class Affine:
    """A linear map, or the scale and shift of a layer norm."""

    weight: Tensor
    bias: Tensor

    def to(self, device: torch.device, dtype: torch.dtype) -> "Affine":
        return Affine(self.weight.to(device, dtype).contiguous(), self.bias.to(device, dtype).contiguous())


class Block:
    """One of open_clip's layers, with constant factors folded into the weights before they are rounded."""

    def __init__(self, block: Any, device: torch.device, dtype: torch.dtype) -> None:
        attention, quick = block.attn, type(block.mlp.gelu).__name__ == "QuickGELU"
        self.heads = attention.num_heads
        D = attention.embed_dim
        # queries come out divided by √d, so that their products with keys need no further pass
        scale = torch.ones(3 * D, 1)
        scale[:D] = (D // self.heads) ** -0.5
        self.norm_attention, self.norm_feed = (affine(n).to(device, dtype) for n in (block.ln_1, block.ln_2))
        self.epsilon = block.ln_1.eps, block.ln_2.eps
        joint = Affine(attention.in_proj_weight * scale, attention.in_proj_bias * scale[:, 0])
        self.queries_keys_values = joint.to(device, dtype)
        self.attention_out = _scaled(attention.out_proj, block.ls_1).to(device, dtype)
        # QuickGELU(x) = SiLU(1.702 x) / 1.702: one pass instead of three
        into, out = affine(block.mlp.c_fc), _scaled(block.mlp.c_proj, block.ls_2)
        if quick:
            into, out = Affine(into.weight * QUICK, into.bias * QUICK), Affine(out.weight / QUICK, out.bias)
        self.feed_in, self.feed_out = into.to(device, dtype), out.to(device, dtype)
        self.activation: Callable[[Tensor], Tensor] = (lambda x: F.silu(x, inplace=True)) if quick else block.mlp.gelu

    def __call__(
        self, x: Tensor, bias: Tensor | None = None, shared: list[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Maps x (C, S, D) to the same shape; also returns this layer's keys and values (C, H, S, d).

        `bias` (C, 1, S, P + S) is added to the products of queries and keys; `shared` are keys and values (1, H, P, d)
        that go before each row's own.
        """
        C, S, D = x.shape
        normed = F.layer_norm(x, (D,), self.norm_attention.weight, self.norm_attention.bias, self.epsilon[0])
        joint = F.linear(normed, self.queries_keys_values.weight, self.queries_keys_values.bias)
        queries, *own = joint.view(C, S, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        both = own
        if shared:
            both = [torch.cat([a.expand(C, -1, -1, -1), b], 2) for a, b in zip(shared, own, strict=True)]
        # plain products: for rows this short they are twice as fast on a CPU as the fused kernel
        products = torch.matmul(queries, both[0].transpose(2, 3))
        if bias is not None:
            products += bias
        seen = torch.matmul(products.softmax(-1), both[1]).transpose(1, 2).reshape(C, S, D)
        x = x + F.linear(seen, self.attention_out.weight, self.attention_out.bias)
        normed = F.layer_norm(x, (D,), self.norm_feed.weight, self.norm_feed.bias, self.epsilon[1])
        inner = self.activation(F.linear(normed, self.feed_in.weight, self.feed_in.bias))
        return x.add_(F.linear(inner, self.feed_out.weight, self.feed_out.bias)), own


def known_blocks(transformer: Any) -> bool:
    """Whether Block can stand in for the layers of this transformer."""
    blocks = list(getattr(transformer, "resblocks", []))
    return bool(blocks) and all(
        type(b) is ResidualAttentionBlock and isinstance(b.ls_1, nn.Identity | LayerScale) for b in blocks
    )


def affine(module: Any) -> Affine:
    """Weight and bias of a linear layer or a layer norm, in fp32."""
    return Affine(module.weight.detach().float(), module.bias.detach().float())


def _scaled(linear: Any, scale: Any) -> Affine:
    """A linear layer with the layer scale after it folded in."""
    out = affine(linear)
    if isinstance(scale, nn.Identity):
        return out
    gamma = scale.gamma.detach().float()
    return Affine(out.weight * gamma[:, None], out.bias * gamma)
