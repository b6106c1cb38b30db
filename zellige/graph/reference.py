"""The reference: a graph run in float64 with numpy, slowly and plainly. The oracle of passes and kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from zellige.errors import GraphError
from zellige.graph import reference_windows as windows
from zellige.graph.ir import Graph, Node
from zellige.graph.operators import complete_attributes
from zellige.graph.reference_functions import activate

Array = np.ndarray
Attributes = Mapping[str, Any]


def _linear(a: Attributes, x: Array, weight: Array, bias: Array | None = None) -> Array:
    result = x @ weight.T
    return result if bias is None else result + bias


def _over_channels(x: Array, vector: Array) -> Array:
    """``vector`` shaped to broadcast along dimension 1 of ``x``."""
    return vector.reshape(-1, *(1,) * max(0, x.ndim - 2))


def _batch_norm(a: Attributes, x: Array, weight: Array, bias: Array, mean: Array, variance: Array) -> Array:
    weight, bias, mean, variance = (_over_channels(x, vector) for vector in (weight, bias, mean, variance))
    return (x - mean) / np.sqrt(variance + a["epsilon"]) * weight + bias


def _log_softmax(a: Attributes, x: Array) -> Array:
    shifted = x - x.max(axis=a["dimension"], keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=a["dimension"], keepdims=True))


def _prelu(a: Attributes, x: Array, slope: Array) -> Array:
    return np.where(x > 0, x, (slope if slope.size == 1 else _over_channels(x, slope)) * x)


_COMPARISONS: Mapping[str, Callable[[Array, Array], Array]] = {
    "greater": np.greater, "greater_equal": np.greater_equal, "equal": np.equal, "not_equal": np.not_equal}


def _where(a: Attributes, left: Array, right: Array, x: Array, y: Array) -> Array:
    return np.where(_COMPARISONS[a["comparison"]](left, right), x, y)


def _slice(a: Attributes, x: Array) -> Array:
    return x[(slice(None),) * a["dimension"] + (slice(a["start"], a["stop"], a["step"]),)]


def _channel_shuffle(a: Attributes, x: Array) -> Array:
    groups = a["groups"]
    return x.reshape(x.shape[0], groups, -1, *x.shape[2:]).swapaxes(1, 2).reshape(x.shape)


EVALUATE: Mapping[str, Callable[..., Array]] = {
    "conv2d": windows.conv2d,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "scale_shift": lambda a, x, scale, shift: x * _over_channels(x, scale) + _over_channels(x, shift),
    "activation": activate,
    "prelu": _prelu,
    "add": lambda a, x, y: x + y,
    "subtract": lambda a, x, y: x - y,
    "multiply": lambda a, x, y: x * y,
    "divide": lambda a, x, y: x / y,
    "maximum": lambda a, x, y: np.maximum(x, y),
    "minimum": lambda a, x, y: np.minimum(x, y),
    "where": _where,
    "max_pool2d": windows.max_pool2d,
    "average_pool2d": windows.average_pool2d,
    "adaptive_average_pool2d": windows.adaptive_average_pool2d,
    "adaptive_max_pool2d": windows.adaptive_max_pool2d,
    "mean": lambda a, x: x.mean(axis=a["dimensions"], keepdims=a["keep"]),
    "sum": lambda a, x: x.sum(axis=a["dimensions"], keepdims=a["keep"]),
    "softmax": lambda a, x: np.exp(_log_softmax(a, x)),
    "log_softmax": _log_softmax,
    "concat": lambda a, *parts: np.concatenate(parts, axis=a["dimension"]),
    "slice": _slice,
    "pad": lambda a, x: windows.pad_map(x, a["padding"], a["mode"], a["value"]),
    "reshape": lambda a, x: x.reshape(a["shape"]),
    "transpose": lambda a, x: x.transpose(a["order"]),
    "channel_shuffle": _channel_shuffle,
    "interpolate": windows.interpolate,
}
"""The meaning of every operator: attributes and float64 operands in, the result out."""


def evaluate(op: str, attributes: Mapping[str, Any], arrays: Sequence[Array]) -> Array:
    """The result of one operator in float64; attributes that are left out take their defaults.

    >>> evaluate("softmax", {"dimension": 0}, [np.zeros(4)]).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    complete = complete_attributes(op, attributes)
    with np.errstate(all="ignore"):
        return np.asarray(EVALUATE[op](complete, *(np.asarray(array, dtype=np.float64) for array in arrays)))


def evaluate_node(node: Node, values: Mapping[str, Array]) -> Array:
    """The result of a node, its epilogue included; ``values`` holds its operands in float64."""
    result = evaluate(node.op, node.attributes, [values[name] for name in node.inputs])
    for step in node.epilogue:
        result = activate(step.attributes, result) if step.operand is None else result + values[step.operand]
    return result


def run_reference(graph: Graph, inputs: Sequence[Array]) -> list[Array]:
    """The outputs of ``graph``, in float64, on ``inputs`` in the order of ``graph.inputs``."""
    expected = [kind.shape for kind in graph.inputs.values()]
    came = [tuple(np.shape(array)) for array in inputs]
    if came != expected:
        raise GraphError(f"graph {graph.name}: expected inputs of shapes {expected}, got {came}")
    values = {name: np.asarray(array, dtype=np.float64)
              for name, array in (*zip(graph.inputs, inputs, strict=True), *graph.constants.items())}
    last_reader = {operand: node.name for node in graph for operand in node.operands}
    for node in graph:
        values[node.name] = evaluate_node(node, values)
        for operand in set(node.operands) - set(graph.outputs):
            if last_reader[operand] == node.name:
                del values[operand]
    return [values[name] for name in graph.outputs]
