"""FMU, the Feature Merge Unit: learned queries gather the characters' foreground out of an image's tokens.

DPTR (arXiv 2408.05706), as the released code computes it: one cross-attention, residual, then norm and feed-forward
with a residual. The released code leaves its queries uninitialised; here they are drawn like position embeddings.
"""

import torch
from torch import Tensor, nn

from train.dropout import Dropout
from train.layers import Attention, feed_forward, initialise

QUERIES = 26  # as many as the released decoder has positions


class FMU(nn.Module):
    """Image tokens (B, T, W) to merged ones (B, queries, W)."""

    def __init__(self, width: int, heads: int, dropout: float, queries: int = QUERIES) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.empty(queries, width))
        self.attention = Attention(width, width, heads, dropout)
        self.norm = nn.LayerNorm(width)
        self.feed = feed_forward(width, dropout)
        self.dropout = Dropout(dropout)
        self.apply(initialise)
        nn.init.trunc_normal_(self.queries, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.queries.expand(tokens.shape[0], -1, -1)
        x = x + self.dropout(self.attention(x, self.attention.keys_values(tokens)))
        return torch.as_tensor(x + self.dropout(self.feed(self.norm(x))))
