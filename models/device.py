"""Device and precision, chosen in the same way for embedding and for training."""

import os
import time
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from cache.errors import WrongUse

PRECISIONS = ("auto", "fp32", "bf16")
LEAST_TRIES = 6  # of a product, before its rate is believed
SIDE = {"cpu": 2048, "cuda": 8192}  # of the square matrices that `product_rate` multiplies


def choose_device(device: str) -> torch.device:
    """The device; `auto` is the GPU if there is one. WrongUse for a device this machine does not have."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise WrongUse(f"there is no device '{device}': use auto, cpu, cuda or cuda:1.") from error
    if chosen.type not in SIDE:
        raise WrongUse(f"dptr computes on a CPU or on NVIDIA's GPUs, not on '{chosen.type}': use --device cpu.")
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
    """fp32 or bf16; `auto` is the faster one here, and fp32 unless bf16 gains 5 %. WrongUse for an unknown precision.

    A processor's flags do not tell: there are some on which bf16 has its instructions and half the speed of fp32.
    """
    if precision not in PRECISIONS:
        raise WrongUse(f"there is no precision '{precision}': choose {', '.join(PRECISIONS)}.")
    if precision != "auto":
        return precision
    rates = product_rates(device)
    return "bf16" if rates["bf16"] > 1.05 * rates["fp32"] else "fp32"


def rates_said(device: torch.device) -> str:
    """What `auto` went by, in words: `32.1 GFLOP/s in fp32, 0.2 in bf16`."""
    rates = product_rates(device)
    return f"{rates['fp32'] / 1e9:,.1f} GFLOP/s in fp32, {rates['bf16'] / 1e9:,.1f} in bf16"


@cache
def product_rates(device: torch.device) -> dict[str, float]:
    """Operations per second of a layer's product, (rows, 512) to (rows, 2048), in each precision; once a process.

    The weight lies as in layers: transposed, bf16 takes thirty times as long on some processors without it. There are
    as many rows as take a hundredth of a second, since precisions differ that much. Each is tried a few times whatever
    the clock says: on a busy machine the first product alone can outlast the time given.
    """
    return {name: _layer_rate(device, dtype) for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))}


def _layer_rate(device: torch.device, dtype: torch.dtype) -> float:
    weight = torch.randn(2048, 512, device=device).to(dtype)
    rows, tries, best, began = 4, 0, 0.0, time.perf_counter()
    while tries < LEAST_TRIES or time.perf_counter() - began < 0.05:
        x = torch.randn(rows, 512, device=device).to(dtype)
        start = time.perf_counter()
        F.linear(x, weight)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took, tries = time.perf_counter() - start, tries + 1
        best = max(best, 2 * rows * weight.numel() / took)
        if took < 0.01:
            rows = min(2 * rows, 1 << 15)
    return best


def seed(number: int, device: torch.device) -> None:
    """As torch.manual_seed, on the CPU and this device alone.

    For three kinds of device that are not there, that one formats the stack at each call: up to 4 ms in deep ones.
    """
    torch.default_generator.manual_seed(number)
    if device.type != "cpu":
        torch.manual_seed(number)


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
