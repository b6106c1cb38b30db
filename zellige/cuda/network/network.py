"""A whole network on a GPU: a program and its decisions become one module of PyTorch's.

What PyTorch does better stays with it: dense convolutions go to cuDNN, channels-last; whatever is no layer of ``layers.py`` runs as
the operator of ATen that it is. Activations are turned where a reader wants another order, once for all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from zellige.cuda.layers.linear import DENSE
from zellige.cuda.network.layers import (
    TOKENS,
    Attention,
    Convolution,
    Layer,
    Linear,
    Norm,
    WithWeights,
    layer_of,
    lead_of,
    shape_of,
)
from zellige.cuda.network.layouts import Decision
from zellige.cuda.network.modules import KERNEL, TORCH, WITHOUT_TILES, module_for
from zellige.cuda.network.trace import Program
from zellige.cuda.operators import features
from zellige.graph.from_torch_walk import module_of
from zellige.passes.sparsity import layer_sparsity

aten = torch.ops.aten

COPYING: dict[Any, Any] = {aten.view.default: aten.reshape.default, aten._unsafe_view.default: aten.reshape.default}
"""What was a view of a map as PyTorch had it is none of one that lies channels-last."""

OPS: dict[type[Layer], str] = {Linear: "linear", Convolution: "conv2d", Norm: "norm", Attention: "attention"}


@dataclass(frozen=True)
class LayerPlan:
    """What was decided for one layer, and why: ``path`` is the way that it runs and the orders that it reads and writes.

    ``macs`` counts the multiplications of the dense layer, ``kept_macs`` those by weights that are not zero; ``seconds`` and
    ``dense_seconds`` are what it, and the dense layer in the same orders, took when they were timed, alone.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    pattern: str
    density: float
    path: str
    reason: str
    macs: int
    kept_macs: int
    seconds: float
    dense_seconds: float


def lower(program: Program, decisions: Mapping[fx.Node, Decision], device: torch.device) -> fx.GraphModule:
    """The module: its weights are on ``device``, in the forms that were decided."""
    lowering = _Lowering(program, decisions, device)
    for node in program.graph.nodes:
        lowering.visit(node)
    lowering.graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
    lowering.graph.lint()
    return fx.GraphModule(lowering.root, lowering.graph)


class _Lowering:
    """The new graph, and where each old node's value is in each order."""

    def __init__(self, program: Program, decisions: Mapping[fx.Node, Decision], device: torch.device) -> None:
        self.program, self.decisions, self.device = program, decisions, device
        self.graph, self.root = fx.Graph(), torch.nn.Module()
        self.made: dict[tuple[fx.Node, str], fx.Node] = {}

    def visit(self, node: fx.Node) -> None:
        own = TOKENS
        if node.op == "get_attr":
            made = self.graph.get_attr(self._constant(str(node.target)))
        elif (layer := layer_of(node)) is not None:
            decision = self.decisions[node]
            own = decision.writes
            name = f"layer_{len(self.made)}"
            self.root.add_module(name, module_for(layer, decision.choice, (decision.reads, own), lead_of(node), self.device,
                                                  self.program.dtype))
            orders = (decision.reads, own)
            made = self.graph.call_module(name, tuple(
                self.value(operand, order) for operand, order in zip(node.args, orders, strict=False)))  # type: ignore[arg-type]
        else:
            made = self.graph.node_copy(node, lambda operand: self.value(operand, TOKENS))
            made.args, made.kwargs = self._placed((made.args, made.kwargs))
            made.target = COPYING.get(made.target, made.target)
            if node.op == "placeholder" and len(shape_of(node)) == 4 and node.meta["val"].is_floating_point():
                made = self.graph.call_method("contiguous", (made,), {"memory_format": torch.channels_last})
        self.made[node, own] = made

    def value(self, node: fx.Node, order: str) -> fx.Node:
        """A node's value in an order, turned if it isn't there yet."""
        if (node, order) not in self.made:
            if order == TOKENS:
                turned = self.graph.call_function(features.transposed, (self.made[node, self.decisions[node].writes],))
                self.made[node, order] = self.graph.call_method("reshape", (turned, *shape_of(node)))
            else:
                flat = self.graph.call_method("reshape", (self.made[node, TOKENS], -1, shape_of(node)[-1]))
                flat = self.graph.call_method("contiguous", (flat,))
                self.made[node, order] = self.graph.call_function(features.transposed, (flat,))
        return self.made[node, order]

    def _constant(self, name: str) -> str:
        """The buffer that holds a constant; maps' weights are channels-last, as cuDNN likes them."""
        buffer = "constant_" + "".join(letter if letter.isalnum() else "_" for letter in name)
        while hasattr(self.root, buffer):
            buffer += "_"
        tensor = self.program.constants[name].detach()
        form = torch.channels_last if tensor.ndim == 4 else torch.preserve_format
        self.root.register_buffer(buffer, tensor.to(self.device, memory_format=form, copy=True))
        return buffer

    def _placed(self, arguments: Any) -> Any:
        """Arguments in which the device that the model was traced on is the one that it runs on."""
        return torch.utils._pytree.tree_map(lambda leaf: self.device if isinstance(leaf, torch.device) else leaf, arguments)


def layer_plans(program: Program, decisions: Mapping[fx.Node, Decision]) -> list[LayerPlan]:
    """A line for every layer and convolution, in the order in which they run."""
    found = []
    for node in program.graph.nodes:
        if (layer := layer_of(node)) is not None:
            decision, choice = decisions[node], decisions[node].choice
            weights, dense = (layer.weights, layer.dense) if isinstance(layer, WithWeights) else ((), 0)
            orders = "channels-last" if isinstance(layer, Convolution) else f"{decision.reads} to {decision.writes}"
            found.append(LayerPlan(", ".join(layer.names), OPS[type(layer)], shape_of(node), *_zeros(weights, 1, dense),
                                   f"{choice.way}, {orders}", _reason(decision),
                                   *_products(weights, math.prod(lead_of(node)), dense), choice.seconds, choice.dense_seconds))
        elif node.target is aten.conv2d.default and (weight := program.original(node.args[1])) is not None:
            groups = int(node.args[6]) if len(node.args) > 6 else 1
            why = "its channels are in groups" if groups > 1 else (
                "its input is one image alone" if len(shape_of(node)) < 4 else f"the model has it in {node.meta['val'].dtype}")
            name, dense = module_of(node)[0] or node.name, weight.numel()
            found.append(LayerPlan(name, "conv2d", shape_of(node), *_zeros((weight,), groups, dense), DENSE,
                                   f"dense, through cuDNN: {why}",
                                   *_products((weight,), math.prod(shape_of(node)) // len(weight), dense), 0.0, 0.0))
    return found


def _zeros(weights: Sequence[torch.Tensor], groups: int, dense: int) -> tuple[str, float]:
    """The pattern of the zeros of stacked weights, each by itself, and the share of so many that is left of all."""
    if not weights:
        return "", 1.0
    found = [layer_sparsity(weight.float().numpy(), groups).pattern for weight in weights]
    return " / ".join(dict.fromkeys(found)), sum(int(weight.count_nonzero()) for weight in weights) / dense


def _products(weights: Sequence[torch.Tensor], places: int, dense: int) -> tuple[int, int]:
    """Multiplications at so many places: by so many weights, and by those that are left."""
    return places * dense, places * sum(int(weight.count_nonzero()) for weight in weights)


def _reason(decision: Decision) -> str:
    choice, faster = decision.choice, decision.faster_alone
    took = f"{1e6 * choice.seconds:.1f} µs"
    if choice.way in (TORCH, KERNEL):
        beside = ""
    elif faster is not None:
        beside = f", {faster.way} {1e6 * faster.seconds:.1f} µs, but the network as a whole is faster dense"
    elif choice.way in WITHOUT_TILES:
        beside = "" if choice.untimed else ", no way through tiles was faster"
    else:
        beside = f", dense in these orders {1e6 * choice.dense_seconds:.1f} µs"
    return f"timed: {took}{beside}{choice.remarks}"
