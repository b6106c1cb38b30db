"""Comparisons on this machine's CPUs: f32, as many threads for everybody, times by the host's clock."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zellige.bench.accuracy import F32_TOLERANCE, Reference
from zellige.bench.clock import Call, Turn
from zellige.bench.conditions import processor
from zellige.bench.place import Place
from zellige.bench.rivals import RIVALS, Build, Inputs
from zellige.bench.rivals.rival import BuildHere, contiguous_arrays
from zellige.cpu.host import usable_cpus


class OnCpu(Place):
    our_tolerance, rival_tolerance, slack = F32_TOLERANCE, 1e-3, 10.0
    turn, lap = Turn(), None

    def __init__(self, threads: int | None = None, dtype: str | None = None, winograd: bool = True, tune: str = "model",
                 target: str = "cpu") -> None:
        self.threads, self.dtype = threads or usable_cpus(), dtype or "f32"
        self.settings = {"target": target, "dtype": self.dtype, "threads": self.threads, "winograd": winograd, "tune": tune}

    @property
    def rivals(self) -> Mapping[str, BuildHere]:
        return {name: self._settled(build) for name, build in RIVALS.items()}

    def _settled(self, build: Build) -> BuildHere:
        return lambda model, inputs: build(model, inputs, self.threads or usable_cpus())

    def bound(self, engine: Any, inputs: Inputs) -> Call:
        arrays = contiguous_arrays(inputs)
        return lambda: engine(*arrays)

    def reference(self, model: torch.nn.Module, inputs: Inputs) -> Reference:
        return Reference.of(model, inputs)

    def file_bytes(self, engine: Any) -> int:
        with tempfile.TemporaryDirectory(prefix="zellige-bench-") as directory:
            path = Path(directory, "model.zlg")
            engine.save(path)
            return path.stat().st_size

    def named(self) -> tuple[str, dict[str, object]]:
        machine, threads = processor(), self.threads or 1
        words = f"{machine['name']} ({machine['llvm_name']}), {threads} thread{'s' * (threads > 1)}"
        return words, {"cpu": machine, "threads": threads}
