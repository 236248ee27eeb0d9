"""What a tower computes, to compare with the machine's measured rate of matrix products."""

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode


def operations(compute: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products in it."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        compute()
    return int(counter.get_total_flops())
