"""Where the parts of concatenations go: into one tensor, each from a group of its own on. Known before anything is placed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zellige.aie2.lowering.placement import Extent, Placement, based, map_of
from zellige.aie2.packet import GROUP
from zellige.aie2.tensor import Lanes
from zellige.graph.quantized import QuantizedNode

VIEWS = ("slice", "reshape", "pad")


def lanes_of_all(found: Placement, orders: Mapping[str, Sequence[int]]) -> dict[str, Lanes]:
    """For every value its lanes, counted from its own first group: known before anything has a place. ``orders``: of the groups of
    convolutions' results. What has a residual added lies as that does."""
    lanes = {name: where.lanes for name, where in found.places.items()}
    for node in found.graph:
        if node.op == "concat" and node.attributes["dimension"] == 1:
            lanes[node.name] = _joined([lanes[name] for name in node.inputs])
        elif node.op == "slice" and node.attributes["dimension"] == 1:
            lanes[node.name] = based(lanes[node.inputs[0]][cut_of(node)])
        elif node.op in ("conv2d", "linear") and not is_depthwise(node):
            residual = lanes[node.inputs[1]] if len(node.inputs) > 1 else ()
            plain = _ordered(node.shape[1] if len(node.shape) > 1 else 0, orders.get(node.name, ()))
            lanes[node.name] = residual if len(residual) == len(plain) else plain
        else:
            lanes[node.name] = lanes[node.inputs[0]]
    return lanes


def _ordered(channels: int, order: Sequence[int]) -> Lanes:
    """The lanes of channels whose groups lie in that order."""
    place = {group: at for at, group in enumerate(order)}
    return tuple(GROUP * place.get(channel // GROUP, channel // GROUP) + channel % GROUP for channel in range(channels))


def _joined(parts: Sequence[Lanes]) -> Lanes:
    joined: list[int] = []
    first = 0
    for part in parts:
        joined += [first + lane for lane in part]
        first += GROUP * (max(part) // GROUP + 1)
    return tuple(joined)


def cut_of(node: QuantizedNode) -> slice:
    a: Mapping[str, Any] = node.attributes
    return slice(a["start"], a["stop"], a["step"])


def is_depthwise(node: QuantizedNode) -> bool:
    weight = node.weight
    return node.op == "conv2d" and weight is not None and weight.shape[:2] == (node.attributes["groups"], 1) and len(weight) > 1


def settle(found: Placement, node: QuantizedNode) -> None:
    """Give the members of a concatenation homes in its tensor, where they are phases' results and have none yet."""
    tensor, group = found.homes.get(node.name, (node.name, 0))
    for name in node.inputs:
        made = found.graph.nodes.get(name)
        if made is not None and made.op not in VIEWS:
            found.homes.setdefault(name, (tensor, group))
        group += max(found.lanes[name]) // GROUP + 1
    if node.name not in found.homes:
        _, height, width = map_of(node.shape)
        found.extents[node.name] = Extent(group, height, width)
