"""Comparisons on the current NVIDIA GPU: everybody in bfloat16 or float16, inputs and results there, times by its events.

Each call gives a result of its own. The right answer is PyTorch's in float64, worked out on the GPU.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zellige.api import check_gpu
from zellige.bench.accuracy import HALF_TOLERANCES, Reference, largest_relative_error, reference_answer
from zellige.bench.clock import Call
from zellige.bench.device_clock import CALLS, DEVICE_TURN, device_lap
from zellige.bench.place import Place
from zellige.bench.rivals import GPU_RIVALS, BuildForGpu, Inputs
from zellige.bench.rivals.rival import BuildHere
from zellige.bench.rivals.torch_eager import arrays_of
from zellige.errors import BenchmarkError

DRIVER = Path("/proc/driver/nvidia/version")


class OnGpu(Place):
    """Raises ``CompileError`` where there is no GPU that can, or for options that it does not have, before any work."""

    threads = None
    turn = DEVICE_TURN
    slack = 3.0

    def __init__(self, threads: int | None = None, dtype: str | None = None, winograd: bool = True, tune: str = "model") -> None:
        self.dtype = dtype or "bf16"
        self.device, self.kind = check_gpu(self.dtype, threads, winograd, tune)
        self.settings = {"target": "cuda", "dtype": self.dtype}
        self.lap = device_lap
        self.our_tolerance = self.rival_tolerance = HALF_TOLERANCES[self.dtype]

    @property
    def rivals(self) -> Mapping[str, BuildHere]:
        return {name: self._settled(build) for name, build in GPU_RIVALS.items()}

    def _settled(self, build: BuildForGpu) -> BuildHere:
        return lambda model, inputs: build(model, inputs, self.kind)

    def bound(self, engine: Any, inputs: Inputs) -> Call:
        there = tuple(x.to(self.device, self.kind if x.is_floating_point() else x.dtype) for x in inputs)
        return lambda: engine(*there)

    def reference(self, model: torch.nn.Module, inputs: Inputs) -> Reference:
        try:
            with torch.no_grad():
                network, there = copy.deepcopy(model).to(self.device), tuple(x.to(self.device) for x in inputs)
                answer = reference_answer(network, there)
                short = network.to(self.kind)(*(x.to(self.kind) if x.is_floating_point() else x for x in there))
            return Reference(answer, largest_relative_error(arrays_of(short), answer))
        except torch.OutOfMemoryError as error:
            reason = str(error).split(". ")[0]
        torch.cuda.empty_cache()
        raise BenchmarkError(f"not enough memory on {self.device} to check answers in float64: {reason}. "
                             "Use a smaller batch or input")

    def file_bytes(self, engine: Any) -> None:
        return None

    def named(self) -> tuple[str, dict[str, object]]:
        if self.device.type != "cuda":
            return str(self.device), {"gpu": {"name": str(self.device)}}
        facts = torch.cuda.get_device_properties(self.device)
        gpu = {"name": facts.name, "compute_capability": f"{facts.major}.{facts.minor}", "memory_bytes": facts.total_memory,
               "multiprocessors": facts.multi_processor_count, "cuda": torch.version.cuda, "driver": driver()}
        words = f"{facts.name}, driver {gpu['driver'] or 'unknown'}, CUDA {torch.version.cuda}, PyTorch {torch.__version__}"
        return words, {"gpu": gpu, "calls_between_events": CALLS}


def driver(file: Path = DRIVER) -> str | None:
    """The version of the NVIDIA driver as the kernel tells it: the first number with dots after ``Kernel Module``."""
    try:
        words = file.read_text().partition("Kernel Module")[2].split()
    except OSError:
        return None
    return next((word for word in words if word.count(".") >= 1 and word.replace(".", "").isdigit()), None)
