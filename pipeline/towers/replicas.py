"""A frozen module on each of several devices: batches are handed out in turn, results come back in order."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Generic, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from cache.errors import DptrError

M = TypeVar("M", bound=Callable[..., Tensor])
T = TypeVar("T")
Tensors = tuple[Tensor, ...]


class Replicas(Generic[M]):
    """`busy` is the time spent computing, in seconds, averaged over the devices."""

    def __init__(self, devices: list[torch.device], make: Callable[[torch.device], M]) -> None:
        """`make` puts the module on a device. The module maps tensors with equal first dimensions to one like them."""
        self.devices = devices
        self.busy = 0.0
        self._modules = [make(device) for device in devices]
        self._most: list[int | None] = [None] * len(devices)  # rows that fit, for a device that ran out of memory
        self._lock = Lock()

    @property
    def first(self) -> M:
        """The module on the first device."""
        return self._modules[0]

    def map(self, batches: Iterable[tuple[T, Tensors]]) -> Iterator[tuple[T, Tensor]]:
        """(label, result as float16 on the CPU) of every batch (label, tensors), in order.

        A thread for each device computes while the caller makes the next batches and uses the last results. A GPU
        that runs out of memory gets this and all later batches in halves. DptrError if a single row does not fit.
        """
        ahead: deque[tuple[T, Future[Tensor]]] = deque()
        pools = [ThreadPoolExecutor(1) for _ in self.devices]
        try:
            for n, (label, tensors) in enumerate(batches):
                if len(ahead) == 2 * len(pools):
                    ready, future = ahead.popleft()
                    yield ready, future.result()
                device = n % len(pools)
                ahead.append((label, pools[device].submit(self._timed, device, tensors)))
            while ahead:
                ready, future = ahead.popleft()
                yield ready, future.result()
        finally:
            for pool in pools:
                pool.shutdown(cancel_futures=True)

    @torch.inference_mode()
    def _timed(self, n: int, tensors: Tensors) -> Tensor:
        began = time.perf_counter()
        found = self._compute(n, tensors)
        with self._lock:
            self.busy += (time.perf_counter() - began) / len(self.devices)
        return found

    def _compute(self, n: int, tensors: Tensors) -> Tensor:
        rows, most = len(tensors[0]), self._most[n]
        if most is None or rows <= most:
            try:
                return self._modules[n](*(_sent(t, self.devices[n]) for t in tensors)).half().cpu()
            except torch.OutOfMemoryError:
                if rows == 1:
                    raise DptrError(
                        f"a single row does not fit into the memory of {self.devices[n]}: end other work there, or use "
                        "--precision bf16, --device cpu or a smaller --model. What is already committed is kept."
                    ) from None
            # outside the handler, whose traceback would keep the tensors alive
            torch.cuda.empty_cache()
            self._most[n] = most = rows // 2
            tqdm.write(
                f"{self.devices[n]} ran out of memory with {rows} rows: going on with {most} at a time.", sys.stderr
            )
        return torch.cat([self._compute(n, tuple(t[k : k + most] for t in tensors)) for k in range(0, rows, most)])


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; pinned first for a GPU, so that the copy overlaps with its work."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
