"""The layers of a network that know both orders of activations: what they are, apart from how they will run.

An activation of … × features, T tokens of it in all, lies in memory as *tokens* × features, as PyTorch has it, or as *features*
× tokens. A layer's operand and its result may each have either; everything else in a network reads and makes tokens × features.
Convolutions have one order: tokens are pixels there, features channels, and PyTorch's channels-last is tokens × features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import fx

from zellige.cuda.tiling.convolution_tiles import Window

TOKENS, FEATURES = "tokens", "features"
ORDERS = (TOKENS, FEATURES)


@dataclass(frozen=True, eq=False)
class Linear:
    """activation(x · Wᵀ + bias (+ residual)). ``weights`` are stacked where several layers read one input; ``names`` says which.

    All in float32. ``dense``: the number of weights that the model has there, zeros and rows or columns that were left out too.
    """

    names: tuple[str, ...]
    weights: tuple[torch.Tensor, ...]
    bias: torch.Tensor | None
    activation: str
    dense: int

    @property
    def weight(self) -> torch.Tensor:
        return torch.cat(self.weights)

    @property
    def bands(self) -> tuple[int, ...]:
        """Rows of each weight."""
        return tuple(len(weight) for weight in self.weights)

    @property
    def rows(self) -> int:
        return sum(self.bands)

    @property
    def columns(self) -> int:
        return self.weights[0].shape[1]


@dataclass(frozen=True, eq=False)
class Convolution:
    """activation(convolution + bias (+ residual)) of images × channels × ``height`` × ``width``, without groups of channels.

    ``weight`` and ``bias`` in float32, with the batch norm that followed in them.
    """

    names: tuple[str, ...]
    weight: torch.Tensor
    bias: torch.Tensor | None
    window: Window
    height: int
    width: int
    activation: str

    @property
    def weights(self) -> tuple[torch.Tensor]:
        return (self.weight,)

    @property
    def dense(self) -> int:
        return self.weight.numel()

    @property
    def rows(self) -> int:
        return self.weight.shape[0]

    @property
    def channels(self) -> int:
        return self.weight.shape[1]


@dataclass(frozen=True, eq=False)
class Norm:
    """A layer norm over the last dimension."""

    names: tuple[str, ...]
    features: int
    weight: torch.Tensor | None
    bias: torch.Tensor | None
    epsilon: float


@dataclass(frozen=True, eq=False)
class Attention:
    """Of every token to its sequence of so many, from queries, keys and values that lie side by side as features."""

    names: tuple[str, ...]
    features: int
    heads: int
    sequence: int
    scale: float


WithWeights = Linear | Convolution
Layer = WithWeights | Norm | Attention


def layer_call(x: torch.Tensor, residual: torch.Tensor | None = None) -> NoReturn:
    """What a node of a program calls where a layer stands, until it is decided how that runs."""
    raise NotImplementedError("a layer runs once its program has been lowered")


def layer_of(node: fx.Node) -> Layer | None:
    found: Layer | None = node.meta.get("layer")
    return found


def put_layer(graph: fx.Graph, layer: Layer, x: fx.Node, like: fx.Node, value: torch.Tensor | None = None,
              residual: fx.Node | None = None) -> fx.Node:
    """A node for a layer, whose result is like that of another node unless a ``value`` is given."""
    node = graph.call_function(layer_call, (x,) if residual is None else (x, residual))
    node.meta = {"layer": layer, "val": like.meta["val"] if value is None else value}
    return node


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """The shape of a node's result; none if that isn't one tensor."""
    value: Any = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def tokens_of(node: fx.Node) -> int:
    return math.prod(shape_of(node)[:-1])


def lead_of(node: fx.Node) -> tuple[int, ...]:
    """The sizes of a layer's result but for its features; of a convolution's, but for its channels."""
    shape = shape_of(node)
    return (shape[0], *shape[2:]) if isinstance(layer_of(node), Convolution) else shape[:-1]
