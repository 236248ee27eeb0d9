"""What a machine can do at most: its measured rate of matrix products, and what a tower makes of it."""

import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

SIDE = {"cpu": 2048, "cuda": 8192}


def product_rate(device: torch.device, dtype: torch.dtype, seconds: float = 2.0) -> float:
    """Floating-point operations a second of a square matrix product, the best of a few."""
    side = SIDE[device.type]
    a = torch.randn(side, side, device=device, dtype=dtype)
    best, began = 0.0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * side**3 / (time.perf_counter() - start))
    return best


def operations(compute: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products in it."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        compute()
    return int(counter.get_total_flops())
