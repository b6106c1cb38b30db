"""ONNX Runtime at its best on a CPU for one request at a time.

All graph optimisations (they include the blocked NCHWc layout of its convolutions), a thread pool of the asked size
within operators, operators one after another, and workers that spin between operators instead of sleeping, which is
the default and the fastest for latency. The kernels compute in the model's own type, so f32 stays f32. Denormals are not
flushed: that switch changes the calling thread's arithmetic for good, and so every other engine's; these networks make none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from zellige.bench.rivals.onnx_file import onnx_file
from zellige.bench.rivals.rival import Inputs, Rival, UnavailableRivalError, contiguous_arrays

NAME = "onnxruntime"
SPINNING = ("session.intra_op.allow_spinning", "1")


def build(model: torch.nn.Module, inputs: Inputs, threads: int) -> Rival:
    """Export the network and open a session on it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UnavailableRivalError("onnxruntime is not installed: pip install 'zellige[bench]'") from error
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry(*SPINNING)
    session: Any
    with onnx_file(model, inputs) as path:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = dict(zip((entry.name for entry in session.get_inputs()), contiguous_arrays(inputs), strict=True))
    return Rival(
        name=NAME,
        version=onnxruntime.__version__,
        call=lambda: session.run(None, feed),
        outputs=_arrays,
        settings={"graph_optimization": "all", "intra_op_threads": threads, "inter_op_threads": 1, "spinning": True},
    )


def _arrays(answer: Any) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(array) for array in answer)
