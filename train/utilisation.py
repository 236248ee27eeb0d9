"""How much of the machine's rate of matrix products training reaches, as the progress line says."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.device import product_rate


class Utilisation:
    """Counts the operations of a step now and then; the machine's rate is measured once, when it is first needed."""

    def __init__(self, device: torch.device, precision: str) -> None:
        self._device, self._dtype = device, torch.bfloat16 if precision == "bf16" else torch.float32
        self._operations: float | None = None  # a word
        self._rate: float | None = None

    @contextmanager
    def watch(self, counting: bool, words: int) -> Iterator[None]:
        """Around a step of so many words, whose operations are counted if `counting`."""
        if not counting:
            yield
            return
        with FlopCounterMode(display=False) as counter:
            yield
        self._operations = counter.get_total_flops() / words

    def share(self, words_per_second: float) -> float | None:
        """Of the machine's rate, from 0 to 1; None before a step was counted."""
        if self._operations is None:
            return None
        if self._rate is None:
            self._rate = product_rate(self._device, self._dtype, 0.3)
        return words_per_second * self._operations / self._rate
