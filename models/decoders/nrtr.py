"""A left-to-right Transformer decoder: it predicts each character from those before it, in training and in reading.

As in NRTR (Sheng, Chen and Xu, ICDAR 2019, arXiv 1806.00926), but with learned positions and pre-norm, like the other
decoders here. S is the length of the input, BOS + characters.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from models.decoders import DecoderConfig, StepDecoder
from models.layers import KeysValues, Layer, learned_rows


@dataclass(frozen=True)
class Config(DecoderConfig):
    """Only the common fields."""


class Decoder(StepDecoder):
    """Causal self-attention over the characters read so far, cross-attention on the memory."""

    architecture = (
        "Input 0 is BOS, input n the n-th character. x[n] = embedding[id] sqrt(width) + positions[n] and predicts "
        "character n + 1 or EOS. Each layer: x += self_attention(norm_self(x), over norm_self(x)), where n sees 0 to "
        "n; x += cross_attention(norm_cross(x), over the memory as it is); x += feed.3(GELU(feed.0(norm_feed(x)))). "
        "keys_and_values gives keys, then values. Logits are head(norm(x)) over EOS and the characters."
    )
    reading: ClassVar = {
        "how": "Left to right: the most probable id is the next input, up to EOS. The text ends before it; its "
        "confidence is the product of the probabilities (softmax) of its characters and that EOS.",
    }

    def __init__(self, config: Config) -> None:
        super().__init__(config, Layer, embeds=True)
        self.positions = learned_rows(config.max_length + 1, config.width)

    def loss(self, memory: Tensor, memory_mask: Tensor | None, targets: Tensor) -> Tensor:
        """Mean cross-entropy of each character and EOS, given everything before it; PAD is never predicted."""
        inputs, outputs = targets[:, :-1], targets[:, 1:]
        S = inputs.shape[1]
        causal = torch.ones(S, S, dtype=torch.bool, device=inputs.device).tril()  # which also hides what follows EOS
        x = self.dropout(self._embed(inputs, self.positions[:S]))
        for layer, keys_values in zip(self.layers, self.memory_keys_values(memory), strict=True):
            x, _ = layer(x, keys_values, causal, memory_mask)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.flatten(0, 1).float(), outputs.flatten(), ignore_index=self.charset.pad)

    @torch.inference_mode()
    def read(self, memory: Tensor, memory_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """As TextDecoder."""
        return self.left_to_right(self.memory_keys_values(memory), memory_mask, len(memory))[:2]

    def step(
        self,
        number: int | Tensor,
        last: Tensor,
        memory: Sequence[KeysValues],
        memory_mask: Tensor | None,
        past: Sequence[KeysValues | None],
    ) -> tuple[Tensor, Tensor, list[KeysValues]]:
        """As StepDecoder."""
        x, seen = self._embed(last, self.positions[number]), []
        for layer, source, old in zip(self.layers, memory, past, strict=True):
            x, new = layer(x, source, None, memory_mask, old)  # (B, 1, W)
            seen.append(new)
        shares, ids = self.head(self.norm(x)).float().softmax(-1).max(-1)
        return ids, shares, seen

    def _embed(self, inputs: Tensor, positions: Tensor) -> Tensor:
        """Embeddings (B, S, W) of ids (B, S) at these positions."""
        return torch.as_tensor(self.embedding(inputs) * math.sqrt(self.config.width) + positions)
