"""What decoders are made of: attention, layers over a memory, and the two-stream layer of PARSeq.

Shape letters: B batch, K permutations, S sequence, M memory rows, W width, D memory width, h heads.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.dropout import Dropout

KeysValues = tuple[Tensor, Tensor]  # each (..., h, S, W / h)


class Attention(nn.Module):
    """Multi-head attention whose keys and values can be computed apart from the queries and used many times."""

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
        """Queries x (B, Q, W) over a source; mask broadcasts to (B, h, Q, S), True where looking is allowed."""
        dropout = self.dropout if self.training else 0.0
        found = F.scaled_dot_product_attention(self._split(self.query(x)), *source, attn_mask=mask, dropout_p=dropout)
        return torch.as_tensor(self.out(found.transpose(-2, -3).flatten(-2)))

    def weights(self, x: Tensor, source: KeysValues, mask: Tensor | None = None) -> Tensor:
        """How much each query looks at each place of the source, (B, h, Q, S), 1 in sum; arguments as in `forward`."""
        queries, keys = self._split(self.query(x)), source[0]
        scores = queries @ keys.transpose(-2, -1) / queries.shape[-1] ** 0.5
        return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(-2, -3)


def feed_forward(width: int, dropout: float) -> nn.Sequential:
    """Two projections with GELU between, four times as wide there."""
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), Dropout(dropout), nn.Linear(4 * width, width))


class CrossLayer(nn.Module):
    """Pre-norm: cross-attention on the memory, feed-forward with GELU. Rows know nothing of each other."""

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
    """Pre-norm: self-attention, then as above."""

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
        """Rows x (B, S, W) one layer on, and the keys and values by which they are seen.

        self_mask (S, S), True where looking is allowed; `past` holds keys and values of rows that came before, and the
        keys and values returned begin with them.
        """
        norm = self.norm_self(x)
        source = self.self_attention.keys_values(norm)
        if past is not None:
            source = joined(past, source)
        x = x + self.dropout(self.self_attention(norm, source, self_mask))
        return self.look(x, memory, memory_mask), source


class DecoderLayer(nn.Module):
    """Pre-norm: self-attention on the content stream, cross-attention on the memory, feed-forward with GELU.

    PARSeq's (arXiv 2207.06966, section 3.1), for all permutations of a batch at once. The query stream carries
    positions only and predicts; the content stream carries the characters and is what queries look at. Both streams
    share every weight but their first norm, so they run as one tensor, queries first.
    """

    def __init__(self, width: int, memory_width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = Attention(width, width, heads, dropout)
        self.cross_attention = Attention(width, memory_width, heads, dropout)
        self.norm_query, self.norm_content = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norm_cross, self.norm_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = Dropout(dropout)
        self.feed = feed_forward(width, dropout)

    def forward(
        self,
        query: Tensor,
        content: Tensor,
        memory: KeysValues,
        self_mask: Tensor | None,
        memory_mask: Tensor | None,
        past: KeysValues | None = None,
        last: bool = False,
    ) -> tuple[Tensor, Tensor, KeysValues]:
        """Both streams (B, K, S, W) one layer on, and the content's keys and values.

        Content that is alike in all permutations, as before the first layer, may come once, (B, 1, S, W).
        memory: `cross_attention.keys_values` of (B, M, D), the same for all permutations. self_mask (B, K, 2 S, S),
        queries' rows first; memory_mask (B, M). `past` holds keys and values of content that came before, for decoding
        character by character. The content that leaves the last layer is read by nobody and is not computed.
        """
        S = query.shape[2]
        norm_content = self.norm_content(content)
        source = self.self_attention.keys_values(norm_content.flatten(0, 1))
        if past is not None:
            source = joined(past, source)
        if content.shape[1] < query.shape[1]:
            K = query.shape[1]
            source = source[0].repeat_interleave(K, 0), source[1].repeat_interleave(K, 0)
            content, norm_content = content.expand(-1, K, -1, -1), norm_content.expand(-1, K, -1, -1)
        x, norm_x = query, self.norm_query(query)
        if not last:
            x, norm_x = torch.cat([query, content], 2), torch.cat([norm_x, norm_content], 2)  # (B, K, 2 S, W)
        mask = None if self_mask is None else self_mask[:, :, : x.shape[2]]
        x = self.attend(x, norm_x, source, memory, mask, memory_mask)
        return x[:, :, :S], content if last else x[:, :, S:], source

    def attend(
        self,
        x: Tensor,
        norm_x: Tensor,
        source: KeysValues,
        memory: KeysValues,
        self_mask: Tensor | None,
        memory_mask: Tensor | None,
    ) -> Tensor:
        """Rows x (B, K, R, W) of either stream one layer on; `norm_x` is x after that stream's norm.

        source: keys and values of the content (B K, h, S, W / h); self_mask (B, K, R, S).
        """
        mask = None if self_mask is None else self_mask.flatten(0, 1)[:, None]
        attended = self.self_attention(norm_x.flatten(0, 1), source, mask).unflatten(0, x.shape[:2])
        x = x + self.dropout(attended)
        mask = None if memory_mask is None else memory_mask[:, None, None]
        attended = self.cross_attention(self.norm_cross(x).flatten(1, 2), memory, mask).view_as(x)
        x = x + self.dropout(attended)
        return torch.as_tensor(x + self.dropout(self.feed(self.norm_feed(x))))


def joined(past: KeysValues, now: KeysValues) -> KeysValues:
    """Keys and values of rows and of those behind them."""
    return torch.cat([past[0], now[0]], -2), torch.cat([past[1], now[1]], -2)


def rows_of(keys_values: Sequence[KeysValues], rows: Tensor) -> list[KeysValues]:
    """Each layer's keys and values of some samples of a batch, by number or mask."""
    return [(keys[rows], values[rows]) for keys, values in keys_values]


def initialise(module: nn.Module) -> None:
    """As PARSeq does: truncated normal of 0.02 and zero biases."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.trunc_normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
