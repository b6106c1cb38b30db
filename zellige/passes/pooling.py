"""Pooling in its plainest form: plain windows where adaptive ones are regular, one mean over the map for all spellings.

An adaptive pool cuts a map into windows from ⌊i·size/out⌋ to ⌈(i+1)·size/out⌉. Where these have one length and stand at
one distance it is a plain pool, and with a single window it is the mean over height and width, for which kernels have a
path of its own.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from zellige.graph.ir import Attribute, Graph, Node
from zellige.passes.rewrite import Rewriting, Rules, rewrite

MAP = (2, 3)


def simplify_pooling(graph: Graph) -> Graph:
    """Regular adaptive pools become plain pools; every average over a whole map becomes ``mean`` over (2, 3)."""
    return rewrite(graph, RULES)


def regular_windows(size: int, out: int) -> tuple[int, int] | None:
    """Kernel and stride of an adaptive pool's windows along one dimension, if they have one of each.

    >>> regular_windows(56, 7), regular_windows(7, 3), regular_windows(7, 5)
    ((8, 8), (3, 2), None)
    """
    starts = [i * size // out for i in range(out)]
    lengths = {-(-(i + 1) * size // out) - start for i, start in enumerate(starts)}
    strides = {after - before for before, after in pairwise(starts)} or set(lengths)
    if len(lengths) > 1 or len(strides) > 1 or 0 in strides:
        return None
    return lengths.pop(), strides.pop()


def _plain_pool(state: Rewriting, node: Node) -> Node | None:
    shape, size = state.shape(node.inputs[0]), node.type.shape
    vertical, horizontal = (regular_windows(shape[i], size[i]) for i in MAP)
    if vertical is None or horizontal is None:
        return None
    kernel, stride = zip(vertical, horizontal, strict=True)
    return state.make(node, node.op.removeprefix("adaptive_"), node.inputs, {"kernel": kernel, "stride": stride})


def _mean(state: Rewriting, node: Node, value: str, dimensions: tuple[int, ...]) -> Node:
    """The mean of ``value`` over ``dimensions``, in the shape of ``node``: a reshape follows if neither form fits."""
    shape = state.shape(value)
    kept = tuple(1 if i in dimensions else size for i, size in enumerate(shape))
    dropped = tuple(size for i, size in enumerate(shape) if i not in dimensions)
    attributes: dict[str, Attribute] = {"dimensions": dimensions, "keep": node.type.shape == kept}
    if node.type.shape in (kept, dropped):
        return state.make(node, "mean", (value,), attributes)
    return state.make(node, "reshape", (state.insert(f"{node.name}.mean", node, "mean", (value,), attributes),),
                      {"shape": node.type.shape})


def _whole_average(state: Rewriting, node: Node) -> Node | None:
    """An average pool with one window, the map."""
    a: Any = node.attributes
    height, width = state.shape(node.inputs[0])[2:]
    if a["kernel"] != (height, width) or any(a["padding"]) or a["divisor"] not in (0, height * width):
        return None
    return _mean(state, node, node.inputs[0], MAP)


def _mean_of_mean(state: Rewriting, node: Node) -> Node | None:
    """One dimension after the other: means of equally many numbers."""
    earlier = state.producer(node.inputs[0], "mean")
    if earlier is None or not state.only_reader(earlier.name):
        return None
    first: Any = earlier.attributes["dimensions"]
    second: Any = node.attributes["dimensions"]
    if not earlier.attributes["keep"]:
        left = [i for i in range(len(state.shape(earlier.inputs[0]))) if i not in first]
        second = [left[i] for i in second]
    return _mean(state, node, earlier.inputs[0], tuple(sorted({*first, *second})))


def _mean_of_flattened(state: Rewriting, node: Node) -> Node | None:
    """The mean over the last dimension of N × C × HW."""
    flat = state.producer(node.inputs[0], "reshape")
    if flat is None or node.attributes["dimensions"] != (2,):
        return None
    shape = state.shape(flat.inputs[0])
    if len(shape) != 4 or flat.type.shape != (*shape[:2], shape[2] * shape[3]):
        return None
    return _mean(state, node, flat.inputs[0], MAP)


def _mean_of_transposed(state: Rewriting, node: Node) -> Node | None:
    """The mean over height and width of N × H × W × C."""
    turned = state.producer(node.inputs[0], "transpose")
    if turned is None:
        return None
    order: Any = turned.attributes["order"]
    dimensions: Any = node.attributes["dimensions"]
    rest = [order[i] for i in range(len(order)) if i not in dimensions]
    if rest != sorted(rest):
        return None
    return _mean(state, node, turned.inputs[0], tuple(sorted(order[i] for i in dimensions)))


def _mean_reshaped(state: Rewriting, node: Node) -> str | None:
    """A mean whose averaged dimensions are dropped, or put back, afterwards: the mean does so itself, under its own name."""
    earlier = state.producer(node.inputs[0], "mean")
    if earlier is None or not state.only_reader(earlier.name):
        return None
    value, dimensions = earlier.inputs[0], earlier.attributes["dimensions"]
    answer = state.make(earlier, "mean", (value,), {"dimensions": dimensions, "keep": not earlier.attributes["keep"]})
    if answer.type != node.type:
        return None
    state.update(answer)
    return earlier.name


RULES: Rules = {
    "adaptive_average_pool2d": (_plain_pool,), "adaptive_max_pool2d": (_plain_pool,),
    "average_pool2d": (_whole_average,), "reshape": (_mean_reshaped,),
    "mean": (_mean_of_mean, _mean_of_flattened, _mean_of_transposed),
}
