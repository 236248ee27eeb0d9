"""Building blocks of decoders: attention, layers over a memory, and a dropout that is fast on a CPU.

Shape letters: B batch, Q queries, S sequence, M memory rows, W width, D memory width, h heads.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KeysValues = tuple[Tensor, Tensor]  # each (..., h, S, W / h)


class Attention(nn.Module):
    """Multi-head attention whose keys and values can be computed separately from the queries, and reused."""

    def __init__(self, width: int, source_width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.keys_and_values = nn.Linear(source_width, 2 * width)
        self.out = nn.Linear(width, width)

    def keys_values(self, source: Tensor) -> KeysValues:
        """Keys and values (B, h, S, W / h) of a source (B, S, source width)."""
        keys, values = self.keys_and_values(source).chunk(2, -1)
        return self._split(keys), self._split(values)

    def forward(self, x: Tensor, source: KeysValues, mask: Tensor | None = None) -> Tensor:
        """Attention of x (B, Q, W) over a source; mask broadcasts to (B, h, Q, S), True where attention is allowed."""
        dropout = self.dropout if self.training else 0.0
        found = F.scaled_dot_product_attention(self._split(self.query(x)), *source, attn_mask=mask, dropout_p=dropout)
        return torch.as_tensor(self.out(found.transpose(-2, -3).flatten(-2)))

    def weights(self, x: Tensor, source: KeysValues, mask: Tensor | None = None) -> Tensor:
        """The attention weights (B, h, Q, S), which sum to 1 over the source. Arguments as in `forward`."""
        queries, keys = self._split(self.query(x)), source[0]
        scores = queries @ keys.transpose(-2, -1) / queries.shape[-1] ** 0.5
        return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(-2, -3)


def feed_forward(width: int, dropout: float) -> nn.Sequential:
    """Two projections with a GELU between them, four times as wide in the middle."""
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), Dropout(dropout), nn.Linear(4 * width, width))


class CrossLayer(nn.Module):
    """Pre-norm: cross-attention on the memory, feed-forward with GELU. Rows do not see each other."""

    def __init__(self, width: int, memory_width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.cross_attention = Attention(width, memory_width, heads, dropout)
        self.norm_cross, self.norm_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = Dropout(dropout)
        self.feed = feed_forward(width, dropout)

    def look(self, x: Tensor, memory: KeysValues, memory_mask: Tensor | None) -> Tensor:
        """Rows x (B, S, W) one layer on; memory: `cross_attention.keys_values` of (B, M, D), memory_mask (B, M)."""
        mask = None if memory_mask is None else memory_mask[:, None, None]
        x = x + self.dropout(self.cross_attention(self.norm_cross(x), memory, mask))
        return torch.as_tensor(x + self.dropout(self.feed(self.norm_feed(x))))


class Layer(CrossLayer):
    """Pre-norm: self-attention, then a CrossLayer."""

    def __init__(self, width: int, memory_width: int, heads: int, dropout: float) -> None:
        super().__init__(width, memory_width, heads, dropout)
        self.self_attention = Attention(width, width, heads, dropout)
        self.norm_self = nn.LayerNorm(width)

    def forward(
        self,
        x: Tensor,
        memory: KeysValues,
        self_mask: Tensor | None,
        memory_mask: Tensor | None,
        past: KeysValues | None = None,
    ) -> tuple[Tensor, KeysValues]:
        """Rows x (B, S, W) one layer on, and the keys and values of what they attended to.

        self_mask (S, S) is True where attention is allowed. `past` holds keys and values of earlier rows; the returned
        keys and values begin with them.
        """
        norm = self.norm_self(x)
        source = self.self_attention.keys_values(norm)
        if past is not None:
            source = joined(past, source)
        x = x + self.dropout(self.self_attention(norm, source, self_mask))
        return self.look(x, memory, memory_mask), source


def joined(past: KeysValues, now: KeysValues) -> KeysValues:
    """Keys and values of earlier rows, followed by those of the rows after them."""
    return torch.cat([past[0], now[0]], -2), torch.cat([past[1], now[1]], -2)


def rows_of(keys_values: Sequence[KeysValues], rows: Tensor) -> list[KeysValues]:
    """Each layer's keys and values of some samples of a batch, given by index or mask."""
    return [(keys[rows], values[rows]) for keys, values in keys_values]


def initialise(module: nn.Module) -> None:
    """PARSeq's initialisation: truncated normal with deviation 0.02, zero biases."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.trunc_normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def learned_rows(count: int, width: int) -> nn.Parameter:
    """(count, width) of the same truncated normal: positions or queries."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(count, width), std=0.02))


class Dropout(nn.Module):
    """nn.Dropout, but faster on a CPU.

    On a CPU, torch draws one double per element on one core, which takes a third of a small decoder's step. Here one
    64-bit draw decides eight elements. So the probability is rounded to a multiple of 1/256, and the kept elements are
    scaled by the rounded value.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """x with elements zeroed with probability p and the others divided by 1 - p; unchanged in evaluation."""
        threshold = round(self.p * 256)
        if not self.training or threshold == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        draws = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = (draws.view(torch.uint8)[: x.numel()] >= threshold).view(x.shape)
        return x * kept.to(x.dtype).mul_(256 / (256 - threshold))
