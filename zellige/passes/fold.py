"""Batch norms and other multiplications and additions by constants, folded into the convolution or linear beside them.

A convolution is linear, so scaling its result per channel scales the rows of its weight, and scaling what it reads
scales the columns. The numbers are computed in float64 and stored in the weight's own type. A weight that was pruned to
zero stays exactly zero, because it is only ever multiplied.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zellige.errors import GraphError
from zellige.graph.ir import Graph, Node
from zellige.passes.affine import Affine, affine_step, as_scale_shift, stored
from zellige.passes.rewrite import Rewriting, Rules, rewrite

HOSTS = ("conv2d", "linear")


def fold_affine(graph: Graph) -> Graph:
    """Folds every batch norm, and every affine step that can be, into a convolution or linear. A batch norm that can't
    be becomes ``scale_shift``.

    The step before a convolution is folded only where that is exact: padded zeros are not shifted by it.
    """
    return rewrite(graph, RULES)


def _into_producer(state: Rewriting, node: Node) -> str | None:
    """conv → step: rows of the weight are scaled, the bias is scaled and shifted."""
    host = state.producer(node.inputs[0], *HOSTS)
    if host is None or not state.only_reader(host.name):
        return None
    weight, bias = _parameters(state, host)
    step = affine_step(state, node, dimension=1 if host.op == "conv2d" else len(host.type.shape) - 1)
    if weight is None or bias is None or step is None:
        return None
    rows = step.scale.reshape(-1, *(1,) * (weight.ndim - 1))
    with np.errstate(all="ignore"):
        moved = bias * step.scale + step.shift
    state.update(_with_parameters(state, host, node, _scaled(weight, rows), moved))
    return host.name


def _from_producer(state: Rewriting, node: Node) -> Node | None:
    """step → conv: columns of the weight are scaled, and what they make of the shift is added to the bias."""
    earlier = state.producer(node.inputs[0])
    if earlier is None or not state.only_reader(earlier.name):
        return None
    weight, bias = _parameters(state, node)
    step = affine_step(state, earlier, dimension=1 if node.op == "conv2d" else len(earlier.type.shape) - 1)
    if weight is None or bias is None or step is None or not _exact(node, step):
        return None
    scale, shift = (_columns(node, weight, vector) for vector in (step.scale, step.shift))
    with np.errstate(all="ignore"):
        moved = bias + (weight * shift).reshape(len(weight), -1).sum(axis=1)
    return _with_parameters(state, node, earlier, _scaled(weight, scale), moved, value=step.value)


def _scaled(weight: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """The weight times ``factors``, in float64; itself if there is nothing to do."""
    with np.errstate(all="ignore"):
        return weight * factors if np.any(factors != 1) else weight


def _exact(node: Node, step: Affine) -> bool:
    padding: Any = node.attributes.get("padding", ())
    return not any(padding) or node.attributes["padding_mode"] != "zeros" or not np.any(step.shift)


def _columns(node: Node, weight: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """A number per input channel, laid beside the weight: row r of the weight sees the channels of its group."""
    groups: Any = node.attributes.get("groups", 1)
    rows = np.repeat(vector.reshape(groups, -1), len(weight) // groups, axis=0)
    return rows.reshape(len(weight), -1, *(1,) * (weight.ndim - 2))


def _parameters(state: Rewriting, host: Node) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The weight as it is and the bias in float64; ``None`` for one that the network computes."""
    weight = state.constant(host.inputs[1])
    if weight is None:
        return None, None
    bias = state.constant(host.inputs[2]) if len(host.inputs) == 3 else np.zeros(len(weight))
    return weight, None if bias is None else bias.astype(np.float64)


def _with_parameters(state: Rewriting, host: Node, step: Node, weight: np.ndarray, bias: np.ndarray,
                     value: str | None = None) -> Node:
    """The host with other parameters, which keep their names where nothing else reads them."""
    name = host.inputs[1]
    kind = state.done.constants[name].dtype
    weight, bias = (stored(array, kind, step, host) for array in (weight, bias))
    names = [state.replace_constant(name, f"{host.name}.weight", weight)]
    if len(host.inputs) == 3:
        names.append(state.replace_constant(host.inputs[2], f"{host.name}.bias", bias))
    elif np.any(bias):
        names.append(state.add_constant(f"{name.removesuffix('.weight')}.bias", bias))
    return state.make(host, host.op, (host.inputs[0] if value is None else value, *names), host.attributes)


def _as_scale_shift(state: Rewriting, node: Node) -> Node:
    """A batch norm with no convolution to go into."""
    step = affine_step(state, node)
    if step is None:
        raise GraphError(f"the statistics and weights of {node.name} (batch_norm, from module "
                         f"{node.origin or 'unknown'}) must be constants: put the model into eval mode, with running "
                         "statistics, before it is exported")
    return as_scale_shift(state, node, step)


RULES: Rules = {
    "conv2d": (_from_producer,), "linear": (_from_producer,), "batch_norm": (_into_producer, _as_scale_shift),
    "scale_shift": (_into_producer,), "add": (_into_producer,), "multiply": (_into_producer,),
}
