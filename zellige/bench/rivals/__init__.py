"""The engines that Zellige is timed beside, each at its best for this machine: one file an engine.

A rival runs the dense network, in f32, on as many threads as Zellige; its answers are checked like ours. To add one,
write a file with ``NAME`` and ``build(model, inputs, threads) -> Rival`` and add it to the table below.
"""

from __future__ import annotations

from zellige.bench.rivals import ncnn, onnxruntime, openvino, torch_compile, torch_eager
from zellige.bench.rivals.rival import Build, Inputs, Rival, UnavailableRivalError

RIVALS: dict[str, Build] = {
    onnxruntime.NAME: onnxruntime.build,
    openvino.NAME: openvino.build,
    ncnn.NAME: ncnn.build,
    torch_eager.NAME: torch_eager.build,
    torch_compile.NAME: torch_compile.build,
}

__all__ = ["RIVALS", "Build", "Inputs", "Rival", "UnavailableRivalError"]
