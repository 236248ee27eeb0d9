"""The two-stream layer of PARSeq: queries that predict and the content they attend to, as one tensor.

Shape letters: B batch, K permutations, S sequence, M memory rows, W width, D memory width, h heads.
"""

import torch
from torch import Tensor, nn

from models.layers import Attention, Dropout, KeysValues, feed_forward, joined


class DecoderLayer(nn.Module):
    """Pre-norm: self-attention on the content stream, cross-attention on the memory, feed-forward with GELU.

    PARSeq's layer (arXiv 2207.06966, section 3.1), for all permutations of a batch at once. The query stream carries
    only positions and predicts; the content stream carries the characters and is what queries attend to. The streams
    share every weight except their first norm, so they run as one tensor, queries first.
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

        Content that is the same in all permutations, as before the first layer, may be given once, (B, 1, S, W).
        memory: `cross_attention.keys_values` of (B, M, D), shared by all permutations. self_mask (B, K, 2 S, S), the
        queries' rows first; memory_mask (B, M). `past` holds keys and values of earlier content, for decoding character
        by character. The last layer computes no content, because nothing reads it.
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

        source: keys and values of the content, (B K, h, S, W / h); self_mask (B, K, R, S).
        """
        mask = None if self_mask is None else self_mask.flatten(0, 1)[:, None]
        attended = self.self_attention(norm_x.flatten(0, 1), source, mask).view_as(x)
        x = x + self.dropout(attended)
        mask = None if memory_mask is None else memory_mask[:, None, None]
        attended = self.cross_attention(self.norm_cross(x).flatten(1, 2), memory, mask).view_as(x)
        x = x + self.dropout(attended)
        return torch.as_tensor(x + self.dropout(self.feed(self.norm_feed(x))))
