"""A mask-diffusion decoder: it learns to fill in words with characters masked, and to correct words with some replaced.

MDiff4STR (Du et al., AAAI 2026, arXiv 2512.01422): six kinds of masks, of which only masked characters count in the
loss, and characters replaced by random ones, where all count. The published model learns from a masked and a replaced
word in each step; here each word is corrupted in one of the seven ways, which halves the cost. No attention is causal.
Words are padded with masks to the longest length, as in reading, so that the input does not tell how long they are.
S is that length, characters + EOS.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from models.charset import EOS
from models.decoders import DecoderConfig, TextDecoder, ended_at_eos
from models.device import upload
from models.layers import KeysValues, Layer, learned_rows

BLOCKS = 6  # at most, into which a word is divided


@dataclass(frozen=True)
class Config(DecoderConfig):
    """Only the common fields."""


class Decoder(TextDecoder):
    """Self-attention over a word that is known in part, cross-attention on the memory, all positions at once."""

    architecture = (
        "Input n is the n-th character, EOS, or a mask, whose id is that of PAD. x[n] = (embedding[id] + "
        "positions[n]) sqrt(width) and predicts input n as it should be. Each layer: x += self_attention(norm_self(x), "
        "over norm_self(x)), where all see all; x += cross_attention(norm_cross(x), over the memory as it is); x += "
        "feed.3(GELU(feed.0(norm_feed(x)))). keys_and_values gives keys, then values. Logits are head(norm(x)) over "
        "EOS and the characters."
    )
    reading: ClassVar = {
        "refinements": 1,
        "how": "All inputs masks, all positions at once: the most probable id of each. Then one refinement: the same "
        "with what was read as input, up to the first EOS, and masks after it. The text ends before the first EOS; its "
        "confidence is the product of the probabilities (softmax) of its characters and that EOS.",
    }

    def __init__(self, config: Config) -> None:
        super().__init__(config, Layer, embeds=True)
        self.positions = learned_rows(config.max_length + 1, config.width)

    def loss(self, memory: Tensor, memory_mask: Tensor | None, targets: Tensor, draws: Tensor | None = None) -> Tensor:
        """Mean cross-entropy per character and EOS; PAD is never predicted.

        Arguments as in TextDecoder, and draws as `drawn` returns them. However little of a word counts, its mean stands
        for all of its characters and EOS.
        """
        draws = self.drawn(targets) if draws is None else draws
        wanted = F.pad(targets[:, 1:], (0, len(self.positions) + 1 - targets.shape[1]), value=self.charset.pad)
        real = wanted != self.charset.pad
        masked, replaced = corrupted(real, self.charset.head, draws)
        inputs = wanted.masked_fill(masked, self.charset.pad)
        inputs = replaced.where(replaced >= 0, inputs)
        logits = self._logits(inputs, self.memory_keys_values(memory), memory_mask)
        losses = F.cross_entropy(
            logits.flatten(0, 1).float(), wanted.flatten(), ignore_index=self.charset.pad, reduction="none"
        ).view_as(wanted)
        lengths = real.sum(-1)
        counted = masked | (real & ~masked.any(-1, keepdim=True))  # where nothing is masked, all places count
        means = (losses * counted).sum(-1) / counted.sum(-1)
        return (means * lengths).sum() / lengths.sum()

    def drawn(self, targets: Tensor) -> Tensor:
        """As TextDecoder: uniform numbers from 0 to 1, (B, 4 + 3 S), as `corrupted` takes them."""
        return upload(torch.rand(len(targets), 4 + 3 * len(self.positions)), targets.device)

    @torch.inference_mode()
    def read(self, memory: Tensor, memory_mask: Tensor | None, refinements: int = 1) -> tuple[Tensor, Tensor]:
        """As TextDecoder: all places masked, then `refinements` passes that correct what was read."""
        keys_values = self.memory_keys_values(memory)
        shape = memory.shape[0], len(self.positions)
        inputs = torch.full(shape, self.charset.pad, dtype=torch.long, device=memory.device)
        for _ in range(1 + refinements):
            shares, ids = self._logits(inputs, keys_values, memory_mask).float().softmax(-1).max(-1)
            ended = F.pad((ids == EOS).cumsum(-1)[:, :-1] > 0, (1, 0))
            inputs = ids.masked_fill(ended, self.charset.pad)
        return ended_at_eos(ids, shares)

    def _logits(self, inputs: Tensor, memory: list[KeysValues], memory_mask: Tensor | None) -> Tensor:
        """(B, S, head) of ids (B, S). Positions are as strong as ids, since only they tell one mask from another."""
        x = self.dropout((self.embedding(inputs) + self.positions) * math.sqrt(self.config.width))
        for layer, keys_values in zip(self.layers, memory, strict=True):
            x, _ = layer(x, keys_values, None, memory_mask)
        return torch.as_tensor(self.head(self.norm(x)))


def corrupted(real: Tensor, head: int, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Which places of each word are masked, (B, S) bool, and the ids that replace others, (B, S): -1 for none.

    real (B, S) is True for the n characters and EOS of a word; draws (B, 4 + 3 S) are uniform from 0 to 1. Each word is
    corrupted in one of seven ways, all as likely. Masked are all places; those after a cut; those before it; those
    after some of 2 to 6 equal blocks; a single place; or each with a probability that is uniform itself, and at least
    one. The seventh masks nothing and replaces each by one of `head` ids, with a probability that is uniform, too.
    """
    S = real.shape[1]
    kind, cut, blocks, share, chance, again, other = draws.split([1, 1, 1, 1, S, S, S], 1)
    lengths, place = real.sum(-1, keepdim=True), torch.arange(S, device=real.device)
    last = lengths - 1
    middle = (1 + cut * last).long().minimum(last)  # from 1 to n - 1; in an empty word 0
    count = 2 + (blocks * (BLOCKS - 1)).long()
    known = (lengths // count).clamp(min=1) * (1 + cut * (count - 1)).long()
    lowest = chance.masked_fill(~real, 1.0)
    single = lowest == lowest.amin(-1, keepdim=True)
    masks = [
        real,
        place >= middle,
        place < middle,
        place >= known.minimum(last),
        single,
        single | (chance < share),
    ]
    chosen = (kind * (len(masks) + 1)).long()
    masked = torch.zeros_like(real)
    for n, mask in enumerate(masks):
        masked = mask.where(chosen == n, masked)
    masked = masked & real
    masked = masked | (single & (chosen < len(masks)) & ~masked.any(-1, keepdim=True))  # an empty word has no cut
    replaced = (other * head).long().where(real & (chosen == len(masks)) & (again < share), -1)
    return masked, replaced
