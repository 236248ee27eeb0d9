"""Counts what a tower computes, for comparison with the machine's measured matmul rate."""

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode


def operations(compute: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products in `compute`."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        compute()
    return int(counter.get_total_flops())
