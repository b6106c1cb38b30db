"""PyTorch as it is, in eager mode: the faster of contiguous and channels-last tensors, under inference mode.

Which layout wins depends on the network and on the processor, so both are tried and the faster one is kept.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from zellige.bench.rivals.rival import Inputs, Rival

NAME = "torch"
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
TRIALS = 5


def build(model: torch.nn.Module, inputs: Inputs, threads: int) -> Rival:
    """Bind the network in each layout, time both briefly and keep the faster."""
    torch.set_num_threads(threads)
    calls = {layout: _bind(model, inputs, memory_format) for layout, memory_format in LAYOUTS.items()}
    layout = min(calls, key=lambda name: _typical_seconds(calls[name]))
    settings = {"layout": layout, "threads": threads, "mode": "inference_mode"}
    return Rival(NAME, torch.__version__, calls[layout], arrays_of, settings)


def _bind(model: torch.nn.Module, inputs: Inputs, memory_format: torch.memory_format) -> Callable[[], object]:
    network = copy.deepcopy(model).to(memory_format=memory_format)  # type: ignore[call-overload, unused-ignore]  # older stubs lack it
    arguments = tuple(in_layout(tensor, memory_format) for tensor in inputs)

    def call() -> object:
        with torch.inference_mode():
            return network(*arguments)

    return call


def in_layout(tensor: torch.Tensor, memory_format: torch.memory_format) -> torch.Tensor:
    """The tensor in that layout; only images (four dimensions) have one to choose."""
    return tensor.contiguous(memory_format=memory_format) if tensor.dim() == 4 else tensor.contiguous()


def _typical_seconds(call: Callable[[], object]) -> float:
    call()
    seconds = []
    for _ in range(TRIALS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def arrays_of(answer: Any) -> tuple[np.ndarray, ...]:
    """Every tensor of a network's answer, in order, as numpy arrays; short floating-point types as float32, which numpy knows."""
    leaves = [leaf.detach().cpu() for leaf in torch.utils._pytree.tree_leaves(answer) if isinstance(leaf, torch.Tensor)]
    return tuple((leaf.float() if leaf.dtype in (torch.bfloat16, torch.float16) else leaf).contiguous().numpy() for leaf in leaves)
