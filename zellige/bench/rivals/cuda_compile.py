"""PyTorch's compiler at its best on NVIDIA GPUs: ``torch.compile(mode="max-autotune")``, which captures a CUDA graph itself."""

from __future__ import annotations

import torch

from zellige.bench.rivals.cuda_eager import on_device
from zellige.bench.rivals.rival import Inputs, Rival, UnavailableRivalError
from zellige.bench.rivals.torch_eager import arrays_of
from zellige.errors import in_one_line

NAME = "torch-compile"
MODE = "max-autotune"
WARMUPS = 3
"""Calls before the clock: the first compiles, and the graph is captured in the second or third."""


def build(model: torch.nn.Module, inputs: Inputs, dtype: torch.dtype) -> Rival:
    """Compile the network, which takes from half a minute to several; each call gives a result of its own, on the GPU."""
    torch._dynamo.reset()
    network, arguments = on_device(model, inputs, dtype)
    compiled = torch.compile(network, mode=MODE, fullgraph=True, dynamic=False)

    def call() -> object:
        with torch.no_grad():
            return torch.utils._pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf,
                                                compiled(*arguments))

    try:
        for _ in range(WARMUPS):
            call()
    except Exception as error:  # Inductor, Triton and the driver raise errors of every kind
        raise UnavailableRivalError(f"torch.compile can't compile the network: {in_one_line(error)}") from error
    return Rival(NAME, torch.__version__, call, arrays_of, {"mode": MODE, "fullgraph": True, "dtype": str(dtype)})
