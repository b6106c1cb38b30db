"""PyTorch's own operators on an NVIDIA GPU, in one CUDA graph: the faster of contiguous and channels-last tensors.

cuDNN may time its algorithms (``benchmark=True``). Inputs lie on the GPU, and each call gives a result of its own there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from zellige.bench.device_clock import device_lap
from zellige.bench.rivals.rival import Inputs, Rival, UnavailableRivalError
from zellige.bench.rivals.torch_eager import LAYOUTS, arrays_of, in_layout
from zellige.cuda.network.capture import Captured
from zellige.errors import FAILURES, in_one_line

NAME = "torch"


def build(model: torch.nn.Module, inputs: Inputs, dtype: torch.dtype) -> Rival:
    """Capture the network in each layout that its inputs can have, time both briefly and keep the faster."""
    layouts = LAYOUTS if any(tensor.dim() == 4 for tensor in inputs) else {"contiguous": torch.contiguous_format}
    try:
        calls = {name: captured(model, inputs, dtype, layout) for name, layout in layouts.items()}
        layout = min(calls, key=lambda name: device_lap(calls[name])) if len(calls) > 1 else next(iter(calls))
    except FAILURES as error:
        raise UnavailableRivalError(f"PyTorch can't capture the network: {in_one_line(error)}") from error
    settings = {"layout": layout, "dtype": str(dtype), "mode": "CUDA graph", "cudnn_benchmark": True}
    return Rival(NAME, torch.__version__, calls[layout], arrays_of, settings)


def captured(model: torch.nn.Module, inputs: Inputs, dtype: torch.dtype,
             layout: torch.memory_format = torch.contiguous_format) -> Callable[[], list[torch.Tensor]]:
    """The network's operators in that type, as one CUDA graph, bound to inputs on the GPU."""
    network, arguments = on_device(model, inputs, dtype, layout)
    graph = Captured(lambda *them: torch.utils._pytree.tree_leaves(network(*them)), [x.clone() for x in arguments])
    return lambda: graph.run(arguments)


def on_device(model: torch.nn.Module, inputs: Inputs, dtype: torch.dtype, layout: torch.memory_format = torch.contiguous_format,
              ) -> tuple[torch.nn.Module, Inputs]:
    """A copy of a network and its inputs on the current GPU, in that type."""
    device = torch.device("cuda", torch.cuda.current_device())
    network = copy.deepcopy(model).to(device, dtype, memory_format=layout)  # type: ignore[call-overload, unused-ignore]
    cast = (x.to(device, dtype if x.is_floating_point() else x.dtype) for x in inputs)
    return network, tuple(in_layout(x, layout) for x in cast)
