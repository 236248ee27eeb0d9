"""A frozen CLIP's text tower, if it is causal: each distinct prefix in a batch of prompts is computed once.

Shape letters: C rows, S nodes of a row, P shared tokens, D width.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pipeline.towers.block import Block, affine, known_blocks
from pipeline.towers.prefix_tree import Batch, PrefixTree
from pipeline.towers.replicas import Replicas
from pipeline.unfinished import Unfinished

POSITIONS = {"cpu": 2048, "cuda": 16384}  # per batch: what fits a CPU's caches leaves a GPU idle
Done = Callable[[int], object]  # called with the number of prompts just finished


class _Layers:
    """A causal text tower on one device, with the tokens that all prompts share computed in advance."""

    def __init__(self, tower: Any, shared: Sequence[int], device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype
        self._tokens = tower.token_embedding.weight.detach().to(device, dtype)
        self._positions = tower.positional_embedding.detach().to(device, dtype)
        self._blocks = [Block(b, device, dtype) for b in tower.transformer.resblocks]
        self._norm, self._epsilon = affine(tower.ln_final).to(device, dtype), tower.ln_final.eps
        self._shared: list[list[Tensor]] = []
        P = len(shared)
        if P:
            with torch.inference_mode():
                tokens, positions = torch.tensor([list(shared)]), torch.arange(P)[None]
                x = self._run(tokens.to(device), positions.to(device), torch.ones(1, P, P, dtype=torch.bool).tril())
                self.shared_states = x[0]  # (P, D)

    def __call__(self, tokens: Tensor, positions: Tensor, ancestors: Tensor) -> Tensor:
        """States (C, S, D) of a batch from a PrefixTree."""
        return self._run(tokens, positions, ancestors, self._shared)

    def _run(
        self, tokens: Tensor, positions: Tensor, ancestors: Tensor, shared: list[list[Tensor]] | None = None
    ) -> Tensor:
        """The states. Without `shared`, the keys and values of this call become the shared ones from now on."""
        x = self._tokens[tokens] + self._positions[positions]
        bias = torch.zeros(ancestors.shape, dtype=self._dtype, device=self._device)
        bias = bias.masked_fill_(~ancestors.to(self._device), -torch.inf)[:, None]
        for n, block in enumerate(self._blocks):
            x, own = block(x, bias, shared[n] if shared else None)
            if shared is None:
                self._shared.append(own)
        return F.layer_norm(x, x.shape[-1:], self._norm.weight, self._norm.bias, self._epsilon)


class CausalTower:
    """States of prompts that all begin with the same tokens; each distinct prefix in a batch is computed once."""

    def __init__(self, tower: Any, shared: Sequence[int], devices: list[torch.device], dtype: torch.dtype) -> None:
        """`tower` is open_clip's, in fp32; `is_causal` must hold for it."""
        self.shared = list(shared)
        self.evaluated = 0  # positions computed so far, padding included
        self.replicas = Replicas(devices, lambda device: _Layers(tower, shared, device, dtype))
        self._width = int(tower.ln_final.weight.shape[0])

    def shared_states(self) -> NDArray[np.float16]:
        """States (P, D) of the tokens that all prompts share."""
        if not self.shared:
            return np.empty((0, self._width), np.float16)
        return np.asarray(self.replicas.first.shared_states.half().cpu().numpy())

    def states(
        self, prompts: Sequence[Sequence[int]], done: Done, unfinished: Unfinished | None = None
    ) -> NDArray[np.float16]:
        """States (Σ (length - P), D) of the prompts' tokens after the shared ones, prompt by prompt."""
        tree = PrefixTree(prompts, len(self.shared))
        found = np.empty((sum(map(len, prompts)) - len(prompts) * len(self.shared), self._width), np.float16)
        batches = tree.batches(POSITIONS[self.replicas.devices[0].type])

        def tensors() -> Iterator[tuple[Any, tuple[Tensor, ...]]]:
            for batch in batches:
                yield batch, tuple(torch.from_numpy(a) for a in (batch.tokens, batch.positions, batch.ancestors))

        made = unfinished.through(self.replicas.map, tensors(), _name) if unfinished else self.replicas.map(tensors())
        for batch, states in made:
            found[batch.target] = np.asarray(states).reshape(-1, self._width)[batch.source]
            self.evaluated += batch.tokens.size
            done(batch.prompts)
        return found


def _name(batch: Batch) -> bytes:
    """Stands for a batch: tokens and their depths are the tree."""
    return hashlib.blake2b(batch.tokens.tobytes() + batch.positions.tobytes(), digest_size=16).digest()


def is_causal(tower: Any) -> bool:
    """Whether a token's state depends only on the tokens before it, and the layers are of a kind that we know."""
    return (
        known_blocks(getattr(tower, "transformer", None))
        and getattr(tower, "attn_mask", None) is not None
        and getattr(tower, "cls_emb", None) is None
    )
