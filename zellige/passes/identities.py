"""Operations that change nothing vanish; shape changes in a row become one.

Models are full of them: a slice of everything, a reshape to the same shape, an adaptive pool to the size at hand, a pad
by nothing. Each would cost a pass over memory, and hide from other rules what really made a value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from zellige.graph.ir import Graph, Node
from zellige.passes.rewrite import Rewriting, Rule, Rules, rewrite

NONE = (0, 0, 0, 0)


def remove_identities(graph: Graph) -> Graph:
    """Lets the readers of an operation that changes nothing read its input, and merges reshapes and transposes."""
    return rewrite(graph, RULES)


Test = Callable[[Rewriting, Node, Mapping[str, Any]], bool]


def _slice(state: Rewriting, node: Node, a: Mapping[str, Any]) -> bool:
    return a["step"] == 1


def _transpose(state: Rewriting, node: Node, a: Mapping[str, Any]) -> bool:
    return a["order"] == tuple(range(len(a["order"])))


def _pool(state: Rewriting, node: Node, a: Mapping[str, Any]) -> bool:
    return a["kernel"] == a["stride"] == (1, 1) and a["padding"] == NONE and a.get("divisor", 0) in (0, 1)


def _shuffle(state: Rewriting, node: Node, a: Mapping[str, Any]) -> bool:
    return a["groups"] in (1, node.type.shape[1])


def _interpolate(state: Rewriting, node: Node, a: Mapping[str, Any]) -> bool:
    return all(scale in (0.0, 1.0) for scale in a["scale"])


def _power(state: Rewriting, node: Node, a: Mapping[str, Any]) -> bool:
    return a["function"] == "power" and a["exponent"] == 1.0


def _scale_shift(state: Rewriting, node: Node, a: Mapping[str, Any]) -> bool:
    scale, shift = map(state.constant, node.inputs[1:])
    return scale is not None and shift is not None and bool(np.all(scale == 1) and np.all(shift == 0))


def _always(state: Rewriting, node: Node, a: Mapping[str, Any]) -> bool:
    return True


def _neutral(value: float) -> Test:
    """Whether the second operand is a scalar that leaves the first as it is."""
    return lambda state, node, a: state.scalar(node.inputs[1]) == value


def _same(test: Test) -> Rule:
    """The rule that a node is its first input, if their types agree and the test holds."""

    def rule(state: Rewriting, node: Node) -> str | None:
        unchanged = node.type == state.done.type_of(node.inputs[0]) and test(state, node, node.attributes)
        return node.inputs[0] if unchanged else None

    return rule


def _merge_reshapes(state: Rewriting, node: Node) -> Node | None:
    earlier = state.producer(node.inputs[0], "reshape")
    return state.make(node, "reshape", earlier.inputs, node.attributes) if earlier else None


def _merge_transposes(state: Rewriting, node: Node) -> Node | None:
    earlier = state.producer(node.inputs[0], "transpose")
    if earlier is None:
        return None
    first: Any = earlier.attributes["order"]
    second: Any = node.attributes["order"]
    return state.make(node, "transpose", earlier.inputs, {"order": tuple(first[i] for i in second)})


# An operation of this kind is the identity if it keeps the shape of its first input and its test holds.
TESTS: Mapping[str, Test] = {
    "slice": _slice, "transpose": _transpose, "max_pool2d": _pool, "average_pool2d": _pool, "channel_shuffle": _shuffle,
    "interpolate": _interpolate, "activation": _power, "scale_shift": _scale_shift, "reshape": _always,
    "pad": lambda state, node, a: a["padding"] == NONE, "concat": lambda state, node, a: len(node.inputs) == 1,
    "adaptive_average_pool2d": _always, "adaptive_max_pool2d": _always, "mean": _always, "sum": _always,
    "add": _neutral(0.0), "subtract": _neutral(0.0), "multiply": _neutral(1.0), "divide": _neutral(1.0),
}

RULES: Rules = {op: (_same(test),) for op, test in TESTS.items()} | {
    "reshape": (_same(_always), _merge_reshapes), "transpose": (_same(_transpose), _merge_transposes)}
