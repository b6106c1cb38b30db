"""A module that is called with the same shapes again and again, as one CUDA graph: its kernels are launched together.

The graph reads inputs and writes results at fixed addresses. A call copies its arguments there, replays, and copies results
out, all on the caller's stream; another stream that calls next waits until that is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median

import torch

from zellige.cuda.layers.timing import CAPTURE_MODE, cudnn_search

WARMUPS = 2
"""Calls before the capture: kernels are compiled and loaded, libraries make their plans."""

Module = Callable[..., Sequence[torch.Tensor]]


@contextmanager
def recording(module: Module, inputs: Sequence[torch.Tensor]) -> Iterator[torch.cuda.CUDAGraph]:
    """A graph that records what is launched inside. Before that the module is called on a stream of its own, as its capture will
    be: by then cuDNN has timed its algorithms and keeps the fastest."""
    with torch.no_grad(), torch.cuda.device(inputs[0].device), cudnn_search():
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARMUPS):
                module(*inputs)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode=CAPTURE_MODE):
            yield graph


class Captured:
    """One graph. ``inputs`` are the tensors it reads, ``results`` those it writes; the module is kept with all that it owns."""

    TIMED = True
    """Whether its times say which network is faster."""

    def __init__(self, module: Module, inputs: Sequence[torch.Tensor]) -> None:
        self.module, self.inputs = module, tuple(inputs)
        self.device, self.done = self.inputs[0].device, torch.cuda.Event()
        with recording(module, self.inputs) as self.graph:
            self.results = tuple(module(*self.inputs))

    def run(self, arguments: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The results for these arguments, as tensors of their own. Arguments may lie on the CPU, and be of any stride."""
        with torch.cuda.device(self.device):
            stream = torch.cuda.current_stream()
            stream.wait_event(self.done)
            for place, argument in zip(self.inputs, arguments, strict=True):
                place.copy_(argument)
            self.graph.replay()
            results = [result.clone(memory_format=torch.contiguous_format) for result in self.results]
            self.done.record(stream)
        return results

    def seconds(self, rounds: int) -> float:
        """What the device takes for one replay, without copies in and out: the median."""
        laps = []
        with torch.cuda.device(self.device):
            for _ in range(rounds + 1):
                start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                start.record()
                self.graph.replay()
                stop.record()
                stop.synchronize()
                laps.append(start.elapsed_time(stop) * 1e-3)
        return median(laps[1:])


class Direct:
    """The same without a graph: how a module runs where there is no GPU, in tests."""

    TIMED = False

    def __init__(self, module: Module, inputs: Sequence[torch.Tensor]) -> None:
        self.module, self.inputs = module, tuple(inputs)

    def run(self, arguments: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        for place, argument in zip(self.inputs, arguments, strict=True):
            place.copy_(argument)
        with torch.no_grad():
            return [result.clone(memory_format=torch.contiguous_format) for result in self.module(*self.inputs)]

    def seconds(self, rounds: int) -> float:
        """The same by the host's clock, with copies in and out."""
        laps = []
        for _ in range(rounds):
            start = time.perf_counter()
            self.run(self.inputs)
            laps.append(time.perf_counter() - start)
        return median(laps)
