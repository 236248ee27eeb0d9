"""What is traced for ONNX: a recogniser's reading as modules of tensors alone.

A decoder that reads in one pass is one module. For one that writes a character after the other there are three: what
comes before the first step, a step, and what comes after the last. Shape letters: B batch, t steps done, S positions,
W width, h heads.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.charset import EOS
from models.decoders import StepDecoder, ended_at_eos
from models.layers import KeysValues
from models.recogniser import Recogniser


class Whole(nn.Module):
    """`Decoder.read` of pictures."""

    def __init__(self, recogniser: Recogniser) -> None:
        super().__init__()
        self.recogniser = recogniser

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (B, 3, H, W) uint8 to ids (B, S) int64 and probabilities (B, S)."""
        return self.recogniser.decoder.read(self.recogniser.memory(pictures), None)


class _Part(nn.Module):
    def __init__(self, recogniser: Recogniser, decoder: StepDecoder) -> None:
        """`decoder` is the recogniser's own; it is not registered, so that every weight has one name in all parts."""
        super().__init__()
        self.recogniser = recogniser
        object.__setattr__(self, "decoder", decoder)
        self.layers, self.positions = len(decoder.layers), decoder.config.max_length + 1

    decoder: StepDecoder

    def pairs(self, tensors: Sequence[Tensor]) -> list[KeysValues]:
        """Each layer's keys and values."""
        return list(zip(tensors[::2], tensors[1::2], strict=True))


class Start(_Part):
    """All that is computed once, and the state before the first step."""

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """Pictures to ids (B, 1), which are BOS, probabilities (B, 0), empty keys, and the memory's keys and values."""
        memory, config = self.recogniser.memory(pictures), self.decoder.config
        B = memory.shape[0]
        ids = torch.full((B, 1), self.decoder.charset.bos, dtype=torch.long)
        empty = memory.new_zeros(B, config.heads, 0, config.width // config.heads)
        looked_at = [one for pair in self.decoder.memory_keys_values(memory) for one in pair]
        return ids, memory.new_ones(B, 0), empty, *looked_at


class Step(_Part):
    """One position more."""

    def forward(self, number: Tensor, ids: Tensor, shares: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """Whether any row goes on, then ids (B, t + 1), BOS first, probabilities (B, t), keys and values, one longer.

        rest: keys and values of each layer's past (B, h, t, W / h), then those of the memory.
        """
        past, memory = rest[: 2 * self.layers], rest[2 * self.layers :]
        found, share, seen = self.decoder.step(number, ids[:, -1:], self.pairs(memory), None, self.pairs(past))
        ids, shares = torch.cat([ids, found], 1), torch.cat([shares, share], 1)
        going = ~(ids == EOS).any(-1).all()
        return going, ids, shares, *(one for pair in seen for one in pair)


class End(_Part):
    """What follows the last step."""

    def forward(self, ids: Tensor, shares: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        """The state after the last step, as in `Step`, to ids and probabilities (B, S)."""
        past, memory, S = rest[: 2 * self.layers], rest[2 * self.layers :], self.positions
        ids, shares = F.pad(ids[:, 1:], (0, S), value=EOS)[:, :S], F.pad(shares, (0, S), value=1.0)[:, :S]
        ids, shares = ended_at_eos(ids, shares)  # rows that have ended go on as long as others do
        return self.decoder.finished(ids, shares, self.pairs(memory), self.pairs(past))
