"""A PARSeq-style decoder: permutation language modelling to train, left to right with refinement to read.

Bautista and Atienza, ECCV 2022, arXiv 2207.06966. Shape letters as in layer.py; S is the length of the input, BOS +
characters, and of the output, characters + EOS.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from cache.errors import WrongUse
from models.charset import EOS
from models.decoders import DecoderConfig, StepDecoder, TextDecoder, ended_at_eos
from models.decoders.parseq.layer import DecoderLayer
from models.decoders.parseq.permutations import attention_masks, draw_permutations, order_count
from models.device import upload
from models.layers import KeysValues, learned_rows, rows_of

TOGETHER = 8  # words are refined in groups of similar length, so that a long one does not make all of them long


@dataclass(frozen=True)
class Config(DecoderConfig):
    """The common fields and one more."""

    permutations: int = 6  # orders in which a batch's characters are predicted: 1, or an even number


class Decoder(StepDecoder):
    """Predicts each character from those before it in some order; in refinement, from all the others."""

    architecture = (
        "Input 0 is BOS, input n the n-th character. content[0] = embedding[BOS] sqrt(width), content[n] = "
        "embedding[id] sqrt(width) + positions[n - 1]; query[n] = positions[n] and predicts character n + 1 or EOS. "
        "Each layer, for both streams alike: x += self_attention(norm_query(query) or norm_content(content), over "
        "norm_content(content)), x += cross_attention(norm_cross(x), over the memory as it is), x += "
        "feed.3(GELU(feed.0(norm_feed(x)))). keys_and_values gives keys, then values. Logits are head(norm(query)) "
        "over EOS and the characters."
    )
    reading: ClassVar = {
        "refinements": 1,
        "how": "First left to right: query n and content n see inputs 0 to n; the most probable id is the next input, "
        "up to EOS. Then one refinement, all positions at once: content as before; query n sees every input but n + 1, "
        "the character that it predicts; nobody sees inputs from the first EOS on. The text ends before the first EOS; "
        "its confidence is the product of the probabilities (softmax) of its characters and that EOS.",
    }
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config, DecoderLayer, embeds=True)
        self.positions = learned_rows(config.max_length + 1, config.width)

    def loss(self, memory: Tensor, memory_mask: Tensor | None, targets: Tensor, orders: Tensor | None = None) -> Tensor:
        """Mean cross-entropy over all predicted characters of all permutations, a scalar.

        Arguments as in TextDecoder, and orders (K, S + 1) as `draw_permutations` returns them; by default they are
        drawn from torch's global generator. EOS is predicted only in the first two orders, PAD never.
        """
        pad = self.charset.pad
        orders = self.drawn(targets) if orders is None else orders
        inputs, outputs = targets[:, :-1], targets[:, 1:]
        B, S = inputs.shape
        K = len(orders)
        query_mask, content_mask = attention_masks(orders)
        readable = (inputs != pad) & (inputs != EOS)  # (B, S)
        mask = torch.cat([query_mask, content_mask], 1) & readable[:, None, None]  # (B, K, 2 S, S)
        query = self.dropout(self.positions[:S].expand(B, K, -1, -1))
        content = self.dropout(self._embed(inputs)).unsqueeze(1)  # (B, 1, S, W): still the same in all orders
        logits = self._run(query, content, self.memory_keys_values(memory), mask, memory_mask)
        wanted = outputs[:, None].repeat(1, K, 1)
        wanted[:, 2:].masked_fill_(wanted[:, 2:] == EOS, pad)
        total = F.cross_entropy(logits.flatten(0, 2).float(), wanted.flatten(), ignore_index=pad, reduction="sum")
        return total / (wanted != pad).sum()

    def drawn(self, targets: Tensor) -> Tensor:
        """As TextDecoder: the orders of characters, (K, S + 1)."""
        return upload(draw_permutations(targets.shape[1] - 2, self.config.permutations), targets.device)

    def predictions(self, targets: Tensor) -> Tensor:
        """As TextDecoder: each character in every order, EOS in two."""
        K = order_count(targets.shape[1] - 2, self.config.permutations)
        characters = (targets[:, 1:] != self.charset.pad).sum() - len(targets)
        return characters * K + len(targets) * min(2, K)

    @torch.inference_mode()
    def read(self, memory: Tensor, memory_mask: Tensor | None, refinements: int = 1) -> tuple[Tensor, Tensor]:
        """As TextDecoder: left to right, then `refinements` cloze refinements."""
        keys_values = self.memory_keys_values(memory)
        ids, shares, ended = self.left_to_right(keys_values, memory_mask, len(memory))
        for n in range(refinements):
            content = self._content(ids, keys_values, memory_mask) if n else _gathered(ended, len(memory))
            before, lengths = ids, (ids != EOS).cumprod(-1).sum(-1)
            ids, shares = ids.clone(), shares.clone()
            for group in (lengths // TOGETHER).unique():
                rows = (lengths // TOGETHER == group).nonzero()[:, 0]
                mask = None if memory_mask is None else memory_mask[rows]
                parts = rows_of(content, rows), rows_of(keys_values, rows)
                ids[rows], shares[rows] = self._refine(before[rows], *parts, mask)
        return ended_at_eos(ids, shares)

    def step(
        self,
        number: int | Tensor,
        last: Tensor,
        memory: Sequence[KeysValues],
        memory_mask: Tensor | None,
        past: Sequence[KeysValues | None],
    ) -> tuple[Tensor, Tensor, list[KeysValues]]:
        """As StepDecoder."""
        position_before = self.positions[number - 1] * (number > 0)  # BOS has none
        content = (self.embedding(last) * math.sqrt(self.config.width) + position_before)[:, None]  # (B, 1, 1, W)
        query, seen = self.positions[number].expand_as(content), []
        for layer, keys_values, old in zip(self.layers, memory, past, strict=True):
            last_layer = layer is self.layers[-1]
            query, content, new = layer(query, content, keys_values, None, memory_mask, old, last_layer)
            seen.append(new)
        shares, ids = self.head(self.norm(query))[:, 0].float().softmax(-1).max(-1)
        return ids, shares, seen

    def finished(
        self, ids: Tensor, shares: Tensor, memory: Sequence[KeysValues], past: Sequence[KeysValues]
    ) -> tuple[Tensor, Tensor]:
        """As StepDecoder: one refinement."""
        return ended_at_eos(*self._refine(ids, past, memory, None, self.config.max_length + 1))

    def _embed(self, inputs: Tensor) -> Tensor:
        """Embeddings (B, S, W) of ids (B, S), BOS first. Position queries are added to characters, not to BOS."""
        embedded = self.embedding(inputs) * math.sqrt(self.config.width)
        return torch.cat([embedded[:, :1], embedded[:, 1:] + self.positions[: inputs.shape[1] - 1]], 1)

    def _run(
        self,
        query: Tensor,
        content: Tensor,
        memory: list[KeysValues],
        mask: Tensor | None,
        memory_mask: Tensor | None,
    ) -> Tensor:
        for layer, keys_values in zip(self.layers, memory, strict=True):
            last = layer is self.layers[-1]
            query, content, _ = layer(query, content, keys_values, mask, memory_mask, last=last)
        return torch.as_tensor(self.head(self.norm(query)))

    def _content(self, ids: Tensor, memory: list[KeysValues], memory_mask: Tensor | None) -> list[KeysValues]:
        """Each layer's keys and values of BOS and all ids but the last, as reading left to right computes them."""
        inputs = torch.cat([torch.full_like(ids[:, :1], self.charset.bos), ids[:, :-1]], 1)
        S, found = inputs.shape[1], []
        causal = torch.ones(S, S, dtype=torch.bool, device=ids.device).tril().expand(len(ids), 1, -1, -1)
        content = self._embed(inputs)[:, None]
        for layer, keys_values in zip(self.layers, memory, strict=True):
            norm = layer.norm_content(content)
            found.append(layer.self_attention.keys_values(norm[:, 0]))
            content = layer.attend(content, norm, found[-1], keys_values, causal, memory_mask)
        return found

    def _refine(
        self,
        ids: Tensor,
        content: Sequence[KeysValues],
        memory: Sequence[KeysValues],
        memory_mask: Tensor | None,
        longest: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Predict every character again, from all characters read before except itself.

        Reading left to right has computed their keys and values already. Positions run only to the end of the longest
        row, unless a row now continues beyond its end.
        """
        lengths = ((ids == EOS).cumsum(-1) == 0).sum(-1)  # as cumprod, which ONNX lacks
        S, T = longest or min(ids.shape[1], int(lengths.max()) + 1), content[0][0].shape[-2]
        place, seen = torch.arange(S, device=ids.device), torch.arange(T, device=ids.device)
        mask = (seen != place[:, None] + 1) & (seen <= lengths[:, None, None])  # (B, S, T): BOS and the characters
        query = self.positions[:S].expand(ids.shape[0], 1, -1, -1)
        for layer, keys_values, source in zip(self.layers, memory, content, strict=True):
            norm = layer.norm_query(query)
            query = layer.attend(query, norm, source, keys_values, mask[:, None], memory_mask)
        found_shares, found = self.head(self.norm(query))[:, 0].float().softmax(-1).max(-1)
        if longest is None and ids.shape[1] > S and not bool((found == EOS).any(-1).all()):
            return self._refine(ids, content, memory, memory_mask, ids.shape[1])
        rest = ids.shape[1] - S
        return F.pad(found, (0, rest), value=EOS), F.pad(found_shares, (0, rest), value=1.0)


def only_parseq(decoder: TextDecoder, what: str, instead: str) -> Decoder:
    """The decoder itself. WrongUse if it is of another kind, saying what needs parseq and what to do instead."""
    if not isinstance(decoder, Decoder):
        raise WrongUse(f"{what} needs a parseq decoder, and this run has {decoder.config.kind}: {instead}.")
    return decoder


def _gathered(parts: list[tuple[Tensor, list[KeysValues]]], B: int) -> list[KeysValues]:
    """Each layer's keys and values (B, h, T, W / h) of rows that ended at different steps; 0 after a row's end."""
    T = parts[-1][1][0][0].shape[-2]
    gathered = []
    for n in range(len(parts[0][1])):
        both = []
        for which in (0, 1):
            example = parts[0][1][n][which]
            whole = example.new_zeros(B, example.shape[1], T, example.shape[3])
            for rows, layers in parts:
                whole[rows, :, : layers[n][which].shape[-2]] = layers[n][which]
            both.append(whole)
        gathered.append((both[0], both[1]))
    return gathered
