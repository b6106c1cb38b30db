"""The engines that Zellige is timed beside, each at its best for this machine: one file an engine.

A rival runs the dense network: on CPUs in f32, on as many threads as Zellige, on a GPU in the type that Zellige computes in. Its
answers are checked like ours. To add one, write a file with ``NAME`` and ``build(model, inputs, threads) -> Rival``, for GPUs
``build(model, inputs, dtype) -> Rival``, and add it to a table below.
"""

from __future__ import annotations

import importlib.util

from zellige.bench.rivals import cuda_compile, cuda_eager, ncnn, onnxruntime, openvino, torch_compile, torch_eager
from zellige.bench.rivals.rival import Build, BuildForGpu, Inputs, Rival, UnavailableRivalError

RIVALS: dict[str, Build] = {
    onnxruntime.NAME: onnxruntime.build,
    openvino.NAME: openvino.build,
    ncnn.NAME: ncnn.build,
    torch_eager.NAME: torch_eager.build,
    torch_compile.NAME: torch_compile.build,
}

GPU_RIVALS: dict[str, BuildForGpu] = {cuda_eager.NAME: cuda_eager.build, cuda_compile.NAME: cuda_compile.build}

NEEDS: dict[str, tuple[str, ...]] = {
    onnxruntime.NAME: ("onnx", "onnxscript", "onnxruntime"),
    openvino.NAME: ("onnx", "onnxscript", "openvino"),
    ncnn.NAME: ("ncnn", "pnnx"),
    torch_eager.NAME: (),
    torch_compile.NAME: (),
}
"""The packages that each rival needs beside PyTorch."""


def why_unavailable(name: str) -> str | None:
    """What keeps that rival from running on this machine, without starting it; ``None`` if nothing does."""
    missing = [package for package in NEEDS[name] if importlib.util.find_spec(package) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (pip install 'zellige[bench]')"
    if name == torch_compile.NAME and torch_compile.find_compiler() is None:
        return torch_compile.NO_COMPILER
    return None


__all__ = ["GPU_RIVALS", "RIVALS", "Build", "BuildForGpu", "Inputs", "Rival", "UnavailableRivalError", "why_unavailable"]
