"""Device and precision, chosen in the same way for embedding and for training."""

import os
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from cache.errors import WrongUse

PRECISIONS = ("auto", "fp32", "bf16")
SIDE = {"cpu": 2048, "cuda": 8192}  # of the square matrices that `product_rate` multiplies


def choose_device(device: str) -> torch.device:
    """The device; `auto` is the GPU if there is one. WrongUse for a device this machine does not have."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise WrongUse(f"there is no device '{device}': use auto, cpu, cuda or cuda:1.") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise WrongUse("this machine has no GPU that torch can use: leave out --device, or use --device cpu.")
    return chosen


def choose_devices(device: str) -> list[torch.device]:
    """The devices for work that several GPUs can share: `auto` and `cuda` mean all of them."""
    chosen = choose_device(device)
    if chosen.type == "cuda" and chosen.index is None:
        return [torch.device("cuda", n) for n in range(torch.cuda.device_count())]
    return [chosen]


def choose_precision(precision: str, device: torch.device) -> str:
    """fp32 or bf16; `auto` is bf16 where the hardware computes it natively. WrongUse for an unknown precision."""
    if precision not in PRECISIONS:
        raise WrongUse(f"there is no precision '{precision}': choose {', '.join(PRECISIONS)}.")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if native else "fp32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """If `precision` is bf16: bf16 for matrix products, fp32 for sums. Otherwise changes nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def differentiable_attention(device: torch.device) -> AbstractContextManager[None]:
    """Attention as plain products on a CPU, where the fused kernel's backward pass takes five times as long."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def product_rate(device: torch.device, dtype: torch.dtype, seconds: float = 2.0) -> float:
    """Floating-point operations per second of a square matrix product: the best of repeated runs."""
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


def memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free_memory(device: torch.device) -> int:
    """Bytes of the device's memory that are free now; on a CPU, the page cache counts as free."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux
        return memory() // 2


def upload(values: Tensor, device: torch.device) -> Tensor:
    """The values on the device, without waiting for it: a GPU copies them from pinned memory."""
    if device.type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)
