"""Chains of small operators: PyTorch's compiler makes one kernel of each, where that was measured to be faster.

What Zellige's kernels do not cover (sums, pooling, softmax, norms of other kinds, the epilogues of dense layers) are operators that
each go through memory. Inductor fuses them; the whole network is timed both ways.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from zellige.cuda.layers.linear import DENSE
from zellige.cuda.network.capture import Captured
from zellige.cuda.network.modules import WeightedModule
from zellige.cuda.network.trace import Program, static_inputs
from zellige.errors import in_one_line

AS_IT_IS, FUSED = "operators as they are", "chains fused by Inductor"
ROUNDS = 9
WORTH_COMPILING = 0.05
"""Share of the network's time that must pass in small operators before their compilation is tried, which takes up to a minute."""

BYTES_PER_SECOND = 1e12
"""What small operators move, at least, on the GPUs that there are: their time is estimated from it."""

Module = Callable[..., Sequence[torch.Tensor]]


def fuse(module: fx.GraphModule, program: Program, seconds: float, runner: Any, device: torch.device) -> tuple[Module, str]:
    """The faster of the module and what Inductor makes of it, and which that is; as it is where nothing runs on a GPU, or where
    small operators take next to nothing of the ``seconds`` that its layers take."""
    moving = loose_bytes(module) / BYTES_PER_SECOND
    if runner is not Captured or moving < WORTH_COMPILING * (seconds + moving):
        return module, AS_IT_IS
    inputs = static_inputs(program, device)
    try:
        compiled = torch.compile(module, fullgraph=True, dynamic=False)
        times = {form: Captured(one, inputs).seconds(ROUNDS) for form, one in ((AS_IT_IS, module), (FUSED, compiled))}
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        return module, f"{AS_IT_IS}: Inductor could not compile it ({in_one_line(error)})"
    best = min(times, key=times.__getitem__)
    told = ", ".join(f"{form} {1e6 * seconds:.0f} µs" for form, seconds in times.items())
    return (compiled if best == FUSED else module), f"{best} ({told})"


def loose_bytes(module: fx.GraphModule) -> int:
    """What is read and written by operators of ATen that are no mere views, and by epilogues of dense layers, about."""
    total = 0
    for node in module.graph.nodes:
        if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload) and not node.target.is_view:
            total += 2 * sum(value.numel() * value.element_size() for value in torch.utils._pytree.tree_leaves(node.meta.get("val"))
                             if isinstance(value, torch.Tensor))
        if node.op == "call_module":
            layer = module.get_submodule(str(node.target))
            if isinstance(layer, WeightedModule) and layer.choice.way == DENSE:
                steps = (layer.activation != "none") + len(node.args) - 1
                total += 2 * steps * math.prod(layer.lead) * layer.weight.shape[0] * layer.weight.element_size()
    return total
