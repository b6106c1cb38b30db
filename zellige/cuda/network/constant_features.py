"""Features that are the same for every token, because pruning took all the weights of their rows: nobody has to make them.

A row without weights gives its bias, or what the activation makes of that. What the next layer makes of such a feature is a
constant too and goes into its bias; the feature's column is not read any more, and its row not written. So where tile-wise
pruning takes half of a layer's rows, the next one has half its columns left, beside those that its own tiles drop.

Attention gives for each feature of the values a mean of it over tokens: of a constant, the constant. There columns are only
emptied, since heads keep their width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import fx
from torch.nn import functional

from zellige.cuda.network.layers import Attention, Linear, layer_of
from zellige.cuda.network.trace import Program

MULTIPLE = 64
"""Features are left in such numbers, so that rows of memory stay aligned and steps of tiles full."""

FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "none": lambda y: y, "relu": torch.relu, "gelu": functional.gelu, "silu": functional.silu}


def drop_constant_features(program: Program) -> None:
    """Between linear layers, and between values and the linear layers behind attention."""
    for node in program.graph.nodes:
        layer = layer_of(node)
        if isinstance(layer, Linear) and len(node.args) == 1 and _read_by_products(node):
            constant = FUNCTIONS[layer.activation](_bias(layer).double())
            dead = ~layer.weight.any(1)
            for reader in dict.fromkeys(node.users):
                _take_in(reader, constant, dead)
            _narrow(node, layer, _left(dead))
        elif isinstance(layer, Attention) and _read_by_products(node):
            values = layer_of(node.args[0])
            if isinstance(values, Linear) and len(node.args[0].args) == 1 and values.activation == "none":
                dead = ~values.weight[-layer.features:].any(1)
                for reader in dict.fromkeys(node.users):
                    _take_in(reader, _bias(values)[-layer.features:].double(), dead)


def _read_by_products(node: fx.Node) -> bool:
    """Whether only linear layers read it, and none adds it as it is."""
    return bool(node.users) and all(isinstance(layer_of(user), Linear) and node not in user.args[1:] for user in node.users)


def _bias(layer: Linear) -> torch.Tensor:
    return torch.zeros(layer.rows) if layer.bias is None else layer.bias


def _take_in(reader: fx.Node, constant: torch.Tensor, dead: torch.Tensor) -> None:
    """Let a linear layer add what the dead features give, and empty their columns."""
    layer: Linear = reader.meta["layer"]
    given = layer.weight[:, dead].double() @ constant[dead]
    weights = tuple(torch.where(dead, 0.0, weight) for weight in layer.weights)
    bias = layer.bias if layer.bias is None and not given.any() else (_bias(layer).double() + given).float()
    reader.meta["layer"] = replace(layer, weights=weights, bias=bias)


def _left(dead: torch.Tensor) -> torch.Tensor:
    """The features that stay, ascending: all that are alive, and as many dead ones as fill up the last multiple."""
    alive = int((~dead).sum())
    wanted = min(len(dead), max(MULTIPLE, -(-alive // MULTIPLE) * MULTIPLE))
    return torch.argsort(dead.int(), stable=True)[:wanted].sort().values


def _narrow(node: fx.Node, layer: Linear, left: torch.Tensor) -> None:
    """Keep these rows of a layer, and these columns of its readers."""
    starts = torch.tensor([0, *layer.bands]).cumsum(0)
    weights = tuple(weight[left[(left >= start) & (left < end)] - start]
                    for weight, start, end in zip(layer.weights, starts[:-1], starts[1:], strict=True))
    node.meta["layer"] = replace(layer, weights=weights, bias=None if layer.bias is None else layer.bias[left])
    node.meta["val"] = node.meta["val"].new_empty(*node.meta["val"].shape[:-1], len(left))
    for reader in node.users:
        following: Linear = reader.meta["layer"]
        reader.meta["layer"] = replace(following, weights=tuple(weight[:, left] for weight in following.weights))

