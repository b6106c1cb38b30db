"""OpenVINO at its best on a CPU for one request at a time.

One stream that owns all the asked threads (the LATENCY hint), and f32 set explicitly: on processors with bf16
instructions its default is bf16. Inputs and outputs are shared with numpy, not copied.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from zellige.bench.rivals.onnx_file import onnx_file
from zellige.bench.rivals.rival import Inputs, Rival, UnavailableRivalError, contiguous_arrays

NAME = "openvino"


def build(model: torch.nn.Module, inputs: Inputs, threads: int) -> Rival:
    """Export the network, read it and compile it for the CPU."""
    try:
        import openvino
    except ImportError as error:
        raise UnavailableRivalError("openvino is not installed: pip install 'zellige[bench]'") from error
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "EXECUTION_MODE_HINT": "PERFORMANCE",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
    }
    core = openvino.Core()
    with onnx_file(model, inputs) as path:
        try:
            compiled = core.compile_model(core.read_model(path), "CPU", settings)
        except RuntimeError as error:
            raise UnavailableRivalError(f"openvino refuses the network: {str(error).splitlines()[0]}") from error
    request = compiled.create_infer_request()
    arrays = contiguous_arrays(inputs)
    for index, array in enumerate(arrays):
        request.set_input_tensor(index, openvino.Tensor(array, shared_memory=True))
    ports = range(len(compiled.outputs))

    def outputs(answer: object) -> tuple[np.ndarray, ...]:
        return tuple(np.array(request.get_output_tensor(index).data) for index in ports)

    return Rival(
        name=NAME, version=openvino.__version__.split("-")[0], call=request.infer, outputs=outputs, settings=settings
    )
