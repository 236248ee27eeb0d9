"""Steps that a GPU replays: forward and backward pass recorded as a CUDA graph, once for each shape of batch.

A small decoder's step is hundreds of kernels of a few microseconds each, and launching them from Python takes longer
than running them. A recorded step is launched with one call. It draws the random numbers that it would draw anyway,
because torch hands the seed to a graph whenever it is replayed.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor

MOST = 96  # recorded shapes: each keeps its inputs in the GPU's memory
Call = Callable[[], Tensor]
Recorded = tuple[Callable[[], None], Tensor]  # repeats the call; where its result is each time


class Recorder(Protocol):
    """Makes calls repeatable."""

    def warm(self, call: Call) -> Tensor:
        """What the call returns, computed where it may be recorded later."""
        ...

    def record(self, call: Call) -> Recorded:
        """Record the call, without computing anything yet."""
        ...


class Replay:
    """`compute`, a function of a dataclass that holds tensors, replayed for shapes that have come up before.

    It must leave its results in the same tensors each time, and must neither wait for the device nor draw anything on
    the CPU. A shape is computed as usual the first time, recorded the second time, and replayed from then on.
    """

    def __init__(self, compute: Callable[[Any], Tensor], recorder: Recorder) -> None:
        self._compute, self._recorder = compute, recorder
        self._seen: set[Any] = set()
        self._recorded: dict[Any, tuple[Recorded, dict[str, Tensor]]] = {}

    def __call__(self, batch: Any) -> Tensor:
        """What `compute(batch)` returns, as a tensor that later calls leave alone."""
        tensors = {f.name: v for f in fields(batch) if isinstance(v := getattr(batch, f.name), Tensor)}
        key = tuple((name, tuple(t.shape), t.dtype) for name, t in tensors.items())
        if key not in self._recorded:
            if key not in self._seen or len(self._recorded) == MOST:
                self._seen.add(key)
                return self._recorder.warm(lambda: self._compute(batch))
            inputs = {name: t.clone() for name, t in tensors.items()}
            fixed = replace(batch, **inputs)
            self._recorded[key] = self._recorder.record(lambda: self._compute(fixed)), inputs
        (again, found), inputs = self._recorded[key]
        for name, tensor in tensors.items():
            inputs[name].copy_(tensor)
        again()
        return found.clone()


class CudaGraphs:
    """Records calls as CUDA graphs, which share one pool of memory because only one of them runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)

    def warm(self, call: Call) -> Tensor:
        """As `Recorder.warm`: on the stream that records, so that what its libraries set up is there by then."""
        now = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(now)
        with torch.cuda.stream(self._stream):
            found = call()
        now.wait_stream(self._stream)
        return found

    def record(self, call: Call) -> Recorded:
        """As `Recorder.record`. Another thread may go on making batches meanwhile."""
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(self._stream.device)
        # torch.cuda.graph would also empty the allocator's cache, which takes longer than recording
        with torch.cuda.stream(self._stream):
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                found = call()
            finally:
                graph.capture_end()
        return graph.replay, found
