"""Connectionist temporal classification over learned queries: each frame writes a character or nothing.

The output is CRNN's (Shi, Bai and Yao, arXiv 1507.05717; the loss is Graves et al., ICML 2006). CRNN's frames are the
columns of a picture. A memory has no columns, so T learned queries gather frames from it and attend to each other, in
place of CRNN's LSTM. T is twice the longest text: enough for a single repeated character, with a blank after each.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from models.charset import EOS
from models.decoders import DecoderConfig, TextDecoder
from models.layers import Layer, learned_rows

BLANK = EOS  # CTC never predicts EOS, so the head has a free place, and frames after the text are EOS already


@dataclass(frozen=True)
class Config(DecoderConfig):
    """Only the common fields."""


class Decoder(TextDecoder):
    """Frames from learned queries: self-attention among them, cross-attention on the memory."""

    replayable = False  # torch's loss reads the lengths on the CPU
    architecture = (
        "x = queries, one for each frame, twice as many as the longest text has characters. Each layer: x += "
        "self_attention(norm_self(x), over norm_self(x)), where all see all; x += cross_attention(norm_cross(x), over "
        "the memory as it is); x += feed.3(GELU(feed.0(norm_feed(x)))). keys_and_values gives keys, then values. "
        "Logits are head(norm(x)) over the blank, which has the id of EOS, and the characters."
    )
    reading: ClassVar = {
        "how": "All frames at once: the most probable id of each; frames in a row with the same id count once, then "
        "blanks are left out. The text's confidence is the product of the probabilities (softmax) of its characters, "
        "each that of its best frame, and of the least sure blank.",
    }

    def __init__(self, config: Config) -> None:
        super().__init__(config, Layer)
        self.queries = learned_rows(2 * config.max_length, config.width)

    def loss(self, memory: Tensor, memory_mask: Tensor | None, targets: Tensor) -> Tensor:
        """The mean over characters of -log the probability that the frames write the words."""
        written = (targets[:, 1:] != EOS) & (targets[:, 1:] != self.charset.pad)
        logits = self._logits(memory, memory_mask).float()  # on a CPU the loss does not exist in bf16
        B, T, _ = logits.shape
        lengths = written.sum(-1)
        frames = torch.full((B,), T, device=lengths.device)
        likely = logits.log_softmax(-1).transpose(0, 1)  # (T, B, head)
        total = F.ctc_loss(likely, targets[:, 1:][written], frames, lengths, BLANK, reduction="sum")
        return total / lengths.sum().clamp(min=1)  # a batch may be of blank pictures alone

    def predictions(self, targets: Tensor) -> Tensor:
        """As TextDecoder, but no frame predicts EOS."""
        return super().predictions(targets) - len(targets)

    @torch.inference_mode()
    def read(self, memory: Tensor, memory_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """As TextDecoder, in one pass. Longer texts are cut off at max_length.

        A character has the probability of its best frame. No frame writes the end, so it has the probability of the
        least certain blank, or 1 if there is no blank.
        """
        frame_shares, frame_ids = self._logits(memory, memory_mask).float().softmax(-1).max(-1)  # (B, T)
        B, steps = memory.shape[0], self.config.max_length + 1
        blank = frame_ids == BLANK
        begins = ~blank & (frame_ids != F.pad(frame_ids[:, :-1], (1, 0), value=BLANK))
        place = begins.cumsum(-1) - 1  # the character that a frame belongs to
        place = place.where(~blank & (place < steps - 1), steps)  # frames of no character: a column that is cut off
        ids = torch.full((B, steps + 1), EOS, dtype=torch.long, device=memory.device).scatter_(1, place, frame_ids)
        shares = torch.zeros(B, steps + 1, device=memory.device).scatter_reduce_(1, place, frame_shares, "amax")
        ids, shares = ids[:, :steps], shares[:, :steps]
        shares = shares.masked_fill(ids == EOS, 1.0)
        ends = (ids != EOS).sum(-1, keepdim=True)
        return ids, shares.scatter_(1, ends, frame_shares.masked_fill(~blank, 1.0).amin(-1, keepdim=True))

    def _logits(self, memory: Tensor, memory_mask: Tensor | None) -> Tensor:
        """(B, T, head)."""
        x = self.dropout(self.queries.expand(memory.shape[0], -1, -1))
        for layer in self.layers:
            x, _ = layer(x, layer.cross_attention.keys_values(memory), None, memory_mask)
        return torch.as_tensor(self.head(self.norm(x)))
