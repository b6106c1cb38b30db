"""Multiplications and additions by constants, in one form: ``scale_shift``, x·scale + shift per channel.

`affine_step` reads every node that does no more than that, whatever its operator. What stands in one form can be merged
here, and folded into a neighbouring convolution in ``fold.py``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from zellige.errors import GraphError
from zellige.graph.ir import Graph, Node
from zellige.passes.rewrite import Rewriting, Rules, rewrite


def merge_affine(graph: Graph) -> Graph:
    """Subtractions and divisions by constants become additions and multiplications, constants stand second, those per
    channel become ``scale_shift``, and chains of such steps become one. Single scalars stay as they are.
    """
    return rewrite(graph, RULES)


class Affine(NamedTuple):
    """``value · scale + shift``, with one number of each (float64) for every element along one dimension."""

    value: str
    scale: np.ndarray
    shift: np.ndarray

    def after(self, earlier: Affine) -> Affine:
        """This step applied to the result of an earlier one."""
        return Affine(earlier.value, earlier.scale * self.scale, earlier.shift * self.scale + self.shift)


def affine_step(state: Rewriting, node: Node, dimension: int = 1) -> Affine | None:
    """What a node does, if it multiplies and adds constants along ``dimension`` (a scalar does so along any)."""
    value, kind = node.inputs[0], node.type
    if dimension >= len(kind.shape) or node.epilogue:
        return None
    constants = [state.constant(name) for name in node.inputs[1:]]
    vectors = [array.astype(np.float64) for array in constants if array is not None]
    if len(vectors) < len(constants) or state.done.type_of(value) != kind:
        return None
    if node.op in ("scale_shift", "batch_norm"):
        if dimension != 1:
            return None
        return Affine(value, *(vectors if node.op == "scale_shift" else _normalisation(node, *vectors)))
    if node.op not in ("add", "multiply"):
        return None
    vector = _along(vectors[0], kind.shape, dimension)
    if vector is None:
        return None
    return Affine(value, np.ones_like(vector), vector) if node.op == "add" else Affine(
        value, vector, np.zeros_like(vector))


def _normalisation(node: Node, weight: np.ndarray, bias: np.ndarray, mean: np.ndarray, variance: np.ndarray,
                   ) -> tuple[np.ndarray, np.ndarray]:
    epsilon: Any = node.attributes["epsilon"]
    with np.errstate(all="ignore"):     # a variance that is no variance shows as numbers that are not finite
        scale = weight / np.sqrt(variance + epsilon)
        return scale, bias - mean * scale


def _along(array: np.ndarray, shape: tuple[int, ...], dimension: int) -> np.ndarray | None:
    """A constant that broadcasts to ``shape`` and varies along one dimension only, as a vector of that length."""
    sizes = (1,) * (len(shape) - array.ndim) + array.shape
    if any(size != 1 for i, size in enumerate(sizes) if i != dimension):
        return None
    return np.broadcast_to(array.reshape(-1), (shape[dimension],)).copy()


def as_scale_shift(state: Rewriting, node: Node, step: Affine) -> Node:
    """The node as ``scale_shift``, its constants in the node's own element type."""
    kind = state.done.constants[node.inputs[1]].dtype
    names = [state.add_constant(f"{node.name}.{part}", stored(array, kind, node))
             for part, array in (("scale", step.scale), ("shift", step.shift))]
    return state.make(node, "scale_shift", (step.value, *names))


def stored(array: np.ndarray, kind: np.dtype, *steps: Node) -> np.ndarray:
    """New parameters in the type of the old ones; a ``GraphError`` names the nodes they came from if that fails."""
    with np.errstate(all="ignore"):
        result = array.astype(kind, copy=False)
    if not np.all(np.isfinite(result)):
        where = " and ".join(f"{node.name} ({node.op}, from module {node.origin or 'unknown'})" for node in steps)
        raise GraphError(f"the constants of {where} give parameters that are not finite in {kind.name}: look for NaN "
                         "or infinite weights, negative running variances or weights that are too large")
    return result


def _constant_second(state: Rewriting, node: Node) -> Node | None:
    first, second = node.inputs
    if state.constant(first) is None or state.constant(second) is not None:
        return None
    return state.make(node, node.op, (second, first))


def _without_inverse(state: Rewriting, node: Node) -> Node | None:
    """x − c is x + (−c); x / c is x · (1/c) if that is a normal number."""
    constant = state.constant(node.inputs[1])
    if constant is None or not np.issubdtype(constant.dtype, np.floating):
        return None
    with np.errstate(all="ignore"):
        inverse = -constant if node.op == "subtract" else 1 / constant
    if node.op == "divide" and not np.all(np.abs(inverse) >= np.finfo(inverse.dtype).tiny):
        return None
    if not np.all(np.isfinite(inverse)):
        return None
    op = "add" if node.op == "subtract" else "multiply"
    name = state.add_constant(f"{node.name}.{'negated' if op == 'add' else 'inverse'}", np.asarray(inverse))
    return state.make(node, op, (node.inputs[0], name))


def _per_channel(state: Rewriting, node: Node) -> Node | None:
    constant = state.constant(node.inputs[1])
    step = affine_step(state, node)
    return None if constant is None or constant.size == 1 or step is None else as_scale_shift(state, node, step)


def _chain(state: Rewriting, node: Node) -> Node | None:
    """Two steps in a row become one, if nothing else reads the value between."""
    earlier = state.producer(node.inputs[0], "add", "multiply", "scale_shift")
    if earlier is None or not state.only_reader(earlier.name):
        return None
    first, second = affine_step(state, earlier), affine_step(state, node)
    return as_scale_shift(state, node, second.after(first)) if first and second else None


RULES: Rules = {
    "subtract": (_without_inverse,), "divide": (_without_inverse,), "scale_shift": (_chain,),
    "add": (_constant_second, _per_channel, _chain), "multiply": (_constant_second, _per_channel, _chain),
}
