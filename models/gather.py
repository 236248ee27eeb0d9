"""Queries that gather one token for each character out of a picture's tokens; the last part of wordclip's image tower.

Shape letters: B batch, Q queries, T tokens, W width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
