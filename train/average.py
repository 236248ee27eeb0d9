"""An exponential moving average of a model's weights, which often reads better than the last of them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """`weights`, one tensor a parameter. At first it forgets faster: by (1 + step) / (10 + step) where that is less."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._parameters: list[Tensor] = list(model.parameters())
        self.weights: list[Tensor] = [p.detach().clone() for p in self._parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step`, counted from 1."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.weights, self._parameters, 1 - decay)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The model has the average for its weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, weight in zip(self._parameters, self.weights, strict=True):
            kept = parameter.clone()
            parameter.copy_(weight)
            weight.copy_(kept)
