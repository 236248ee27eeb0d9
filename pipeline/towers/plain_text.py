"""Text towers of any other kind: open_clip's own forward pass over the whole context, prompt by prompt.

Their tokens look ahead, or a class token follows the words, or their layers are unknown: so no state can be shared.

Shape letters: B prompts, L positions, D width, E width of the text feature.
"""

import copy
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.transformer import TextTransformer
from torch import Tensor

from pipeline.tokenizer import Tokenizer
from pipeline.towers.causal_text import POSITIONS, Done
from pipeline.towers.replicas import Replicas
from pipeline.unfinished import Unfinished


class PlainTower:
    """States of prompts by open_clip's own forward pass over the whole context, for towers of any other kind."""

    shared: Sequence[int] = ()

    def __init__(
        self, tower: Any, tokens: Tokenizer, width: int, devices: list[torch.device], dtype: torch.dtype
    ) -> None:
        self._context, self._width, self._pad = tokens.context, width, tokens.pad
        self.evaluated = 0
        self.replicas = Replicas(devices, lambda device: _Whole(tower, device, dtype))

    def shared_states(self) -> NDArray[np.float16]:
        """(0, D): no state is shared."""
        return np.empty((0, self._width), np.float16)

    def states(
        self, prompts: Sequence[Sequence[int]], done: Done, unfinished: Unfinished | None = None
    ) -> NDArray[np.float16]:
        """States (Σ length, D) of the prompts' tokens, prompt by prompt."""
        size = max(1, POSITIONS[self.replicas.devices[0].type] // self._context)
        tokens = torch.full((len(prompts), self._context), self._pad)
        for row, prompt in zip(tokens, prompts, strict=True):
            row[: len(prompt)] = torch.tensor(prompt)
        parts = ((prompts[n : n + size], (tokens[n : n + size],)) for n in range(0, len(prompts), size))
        found = []
        made = unfinished.through(self.replicas.map, parts, _name) if unfinished else self.replicas.map(parts)
        for some, states in made:
            found += [np.asarray(row[: len(prompt)]) for row, prompt in zip(states, some, strict=True)]
            self.evaluated += len(some) * self._context
            done(len(some))
        return np.concatenate(found)


def _name(prompts: Sequence[Sequence[int]]) -> bytes:
    """Stands for a batch."""
    return hashlib.blake2b(str([np.asarray(prompt).tolist() for prompt in prompts]).encode(), digest_size=16).digest()


class _Whole:
    def __init__(self, tower: Any, device: torch.device, dtype: torch.dtype) -> None:
        self._tower = copy.deepcopy(tower).to(device, dtype)

    def __call__(self, tokens: Tensor) -> Tensor:
        """States (B, L, D) of token ids (B, L)."""
        tower = self._tower
        if hasattr(tower, "config"):  # one of transformers'
            mask = (tokens != tower.config.pad_token_id).long()
            return torch.as_tensor(tower.transformer(input_ids=tokens, attention_mask=mask).last_hidden_state)
        if isinstance(tower, TextTransformer):
            x, mask = tower._embeds(tokens)
        else:
            x, mask = tower.token_embedding(tokens) + tower.positional_embedding, tower.attn_mask
        x = tower.ln_final(tower.transformer(x, attn_mask=mask))
        return torch.as_tensor(x[:, : tokens.shape[1]])  # a class token comes last
