"""A parallel decoder: each position attends to the memory on its own, and all characters are written in one pass.

The idea is that of ABINet's vision decoder (Fang et al., CVPR 2021, arXiv 2103.06495, section 3.1): position queries
that attend to a feature map. A memory is not a map, so layers of attention and feed-forward replace the mini U-Net. No
position knows what the others write. S is the length of characters + EOS.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from models.decoders import DecoderConfig, TextDecoder, ended_at_eos
from models.layers import CrossLayer, learned_rows


@dataclass(frozen=True)
class Config(DecoderConfig):
    """Only the common fields."""


class Decoder(TextDecoder):
    """Position queries, cross-attention on the memory, classification of each position."""

    architecture = (
        "x[n] = positions[n] and predicts character n + 1 or EOS. Each layer: x += cross_attention(norm_cross(x), over "
        "the memory as it is); x += feed.3(GELU(feed.0(norm_feed(x)))). keys_and_values gives keys, then values. "
        "Logits are head(norm(x)) over EOS and the characters."
    )
    reading: ClassVar = {
        "how": "All positions at once: the most probable id of each. The text ends before the first EOS; its "
        "confidence is the product of the probabilities (softmax) of its characters and that EOS.",
    }

    def __init__(self, config: Config) -> None:
        super().__init__(config, CrossLayer)
        self.positions = learned_rows(config.max_length + 1, config.width)

    def loss(self, memory: Tensor, memory_mask: Tensor | None, targets: Tensor) -> Tensor:
        """Mean cross-entropy of each character and EOS; PAD is never predicted."""
        outputs = targets[:, 1:]
        logits = self._logits(memory, memory_mask, outputs.shape[1])
        return F.cross_entropy(logits.flatten(0, 1).float(), outputs.flatten(), ignore_index=self.charset.pad)

    @torch.inference_mode()
    def read(self, memory: Tensor, memory_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """As TextDecoder, in one pass."""
        logits = self._logits(memory, memory_mask, self.config.max_length + 1)
        shares, ids = logits.float().softmax(-1).max(-1)
        return ended_at_eos(ids, shares)

    def _logits(self, memory: Tensor, memory_mask: Tensor | None, S: int) -> Tensor:
        """(B, S, head)."""
        x = self.dropout(self.positions[:S].expand(memory.shape[0], -1, -1))
        for layer in self.layers:
            x = layer.look(x, layer.cross_attention.keys_values(memory), memory_mask)
        return torch.as_tensor(self.head(self.norm(x)))
