"""Padding where it costs nothing: zeros inside the convolution or pool that reads them, everything else apart.

Kernels read zero (or, for a maximum, −∞) margins that are filled once. So a `pad` in front folds into the padding of
its reader, and a convolution that pads by reflection, replication or wrapping around gets a `pad` of its own.
"""

from __future__ import annotations

import math
from typing import Any

from zellige.graph.ir import Graph, Node
from zellige.passes.rewrite import Rewriting, Rules, rewrite


def fold_padding(graph: Graph) -> Graph:
    """``pad`` folds into convolutions, average pools (zeros) and max pools (−∞); other modes stand apart."""
    return rewrite(graph, RULES)


def _fills_with(pad: Node, value: float) -> bool:
    """Whether a ``pad`` only adds, and only ``value``."""
    a: Any = pad.attributes
    fill = {"zeros": 0.0, "constant": a["value"]}.get(a["mode"])
    return fill == value and min(a["padding"]) >= 0


def _sum(first: Node, second: Node, key: str) -> tuple[int, ...]:
    before: Any = first.attributes["padding"]
    after: Any = second.attributes[key]
    return tuple(b + a for b, a in zip(before, after, strict=True))


def _into_reader(state: Rewriting, node: Node) -> Node | None:
    pad = state.producer(node.inputs[0], "pad")
    if pad is None or not _fills_with(pad, -math.inf if node.op == "max_pool2d" else 0.0):
        return None
    if node.attributes.get("padding_mode", "zeros") != "zeros":
        return None
    attributes = {**node.attributes, "padding": _sum(pad, node, "padding")}
    if node.op == "average_pool2d":        # zeros of the pad count in the divisor, as numbers of its input did
        attributes["count_padding"] = _sum(pad, node, "count_padding")
    return state.make(node, node.op, (*pad.inputs, *node.inputs[1:]), attributes)


def _into_pad(state: Rewriting, node: Node) -> Node | None:
    """Two pads by zeros become one."""
    earlier = state.producer(node.inputs[0], "pad")
    if earlier is None or not (_fills_with(earlier, 0.0) and _fills_with(node, 0.0)):
        return None
    return state.make(node, "pad", earlier.inputs, {"padding": _sum(earlier, node, "padding")})


def _apart(state: Rewriting, node: Node) -> Node | None:
    """A convolution that pads by anything but zeros reads a padded value instead."""
    mode, padding = node.attributes["padding_mode"], node.attributes["padding"]
    if mode == "zeros":
        return None
    padded = state.insert(f"{node.name}.pad", node, "pad", node.inputs[:1], {"padding": padding, "mode": mode})
    attributes = {**node.attributes, "padding": (0, 0, 0, 0), "padding_mode": "zeros"}
    return state.make(node, "conv2d", (padded, *node.inputs[1:]), attributes)


RULES: Rules = {"conv2d": (_into_reader, _apart), "average_pool2d": (_into_reader,), "max_pool2d": (_into_reader,),
                "pad": (_into_pad,)}
