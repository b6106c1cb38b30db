"""From a quantised graph to phases and host tensors: which operation a node is, and where its value goes.

Concatenations, slices, reshapes and padding with zeros are only places. What they can't be places for is copied, by a phase of its
own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from zellige.aie2.lowering.homes import cut_of, is_depthwise, lanes_of_all, settle
from zellige.aie2.lowering.margins import settle_margins
from zellige.aie2.lowering.placement import Placement, based, map_of, region
from zellige.aie2.lowering.taps import diagonal_taps, product_taps, window_taps
from zellige.aie2.lowering.windows import place_window
from zellige.aie2.packet import PRODUCT, SUM, TABLE
from zellige.aie2.tensor import Place
from zellige.errors import CompileError
from zellige.graph.fixed_point import LEAST, MOST
from zellige.graph.quantized import QuantizedGraph, QuantizedNode


def place(graph: QuantizedGraph, orders: Mapping[str, Sequence[int]] | None = None) -> Placement:
    """The phases and places of a network. ``orders``: of the channel groups of convolutions' results, by node.

    Raises ``CompileError`` naming the first node that can't be placed.
    """
    found = Placement(graph)
    for name, shape in graph.inputs.items():
        found.new(name, shape)
    for name, array in graph.constants.items():
        where = found.new(name, array.shape)
        found.extents[name] = replace(found.extents[name], constant=(where, array))
    found.lanes = lanes_of_all(found, orders or {})
    for node in reversed(list(graph)):
        if node.op == "concat":
            settle(found, node)
    for node in graph:
        try:
            PLACE.get(node.op, _refuse)(found, node)
        except CompileError as error:
            what = f"node {node.name!r} ({node.op}, from module {node.origin or 'unknown'})"
            raise CompileError(f"{what} can't run on AIE2: {error}") from None
    settle_margins(found)
    return found


def _refuse(found: Placement, node: QuantizedNode) -> None:
    raise CompileError(f"supported are {', '.join(PLACE)}")


def _place_product(found: Placement, node: QuantizedNode) -> None:
    """Convolutions, linear layers (whose window is the map that was flattened), and products with a number for each channel."""
    a: Mapping[str, Any] = node.attributes
    x, weight = found.places[node.inputs[0]], node.weight
    assert weight is not None
    if a.get("padding_mode", "zeros") != "zeros":
        raise CompileError(f"expected padding with zeros, got {a['padding_mode']!r}")
    stride, padding, dilation = a.get("stride", (1, 1)), a.get("padding", (0, 0, 0, 0)), a.get("dilation", (1, 1))
    if node.op == "linear":
        if len(node.shape) != 2:
            raise CompileError(f"expected a linear layer on [1, C], got a result of {list(node.shape)}")
        weight = weight.reshape(len(weight), len(x.lanes), x.height, x.width)
    _, height, width = map_of(node.shape)
    lanes = based(x.lanes)
    own = node.op == "scale_shift" or is_depthwise(node)
    if own:
        weight = weight.reshape(len(weight), *(weight.shape[2:] if weight.ndim == 4 else (1, 1)))
        taps = diagonal_taps(weight, dilation, lanes, x.groups)
    else:
        taps = product_taps(weight, a.get("groups", 1), dilation, lanes, found.lanes[node.name])
    window = tuple((size - 1) * step + 1 for size, step in zip(weight.shape[-2:], dilation, strict=True))
    target = found.target(node.name, lanes if own else found.lanes[node.name], height, width, node.shape)
    source, _ = found.windowed(node, x, (-padding[0], -padding[2]), (height, width), stride, window)
    residual = found.second(node, target) if len(node.inputs) == 2 else None
    found.add(node, PRODUCT, source, target, taps, (height, width), stride=stride, window=window, residual=residual, own=own)
    found.done(node, target, node.low)


def _place_terms(found: Placement, node: QuantizedNode) -> None:
    """Additions, subtractions and clamps."""
    x = found.places[node.inputs[0]]
    if prod(x.shape) != prod(node.shape):
        raise CompileError(f"expected operands of the result's shape {list(node.shape)}, got {list(x.shape)}")
    target = found.target(node.name, based(x.lanes), x.height, x.width, node.shape)
    residual = found.second(node, target) if len(node.inputs) == 2 else None
    found.add(node, SUM, region(x), target, window_taps(x.groups, (1, 1)), (x.height, x.width), residual=residual)
    found.done(node, target, node.low)


def _place_table(found: Placement, node: QuantizedNode) -> None:
    x = found.places[node.inputs[0]]
    assert node.table is not None
    if node.table.ndim != 1:
        raise CompileError("expected one table for all channels, got one for each")
    target = found.target(node.name, based(x.lanes), x.height, x.width, node.shape)
    found.add(node, TABLE, region(x), target, window_taps(x.groups, (1, 1)), (x.height, x.width), table=node.table)
    found.done(node, target, int(node.table.min()))


def _place_concat(found: Placement, node: QuantizedNode) -> None:
    if node.attributes["dimension"] != 1:
        raise CompileError(f"expected a concatenation of channels, got one over dimension {node.attributes['dimension']}")
    tensor, group = found.homes.get(node.name, (node.name, 0))
    lanes: list[int] = []
    _, height, width = map_of(node.shape)
    for position, name in enumerate(node.inputs):
        x = found.places[name]
        if len(x.shape) == 2 and x.height * x.width > 1:
            raise CompileError("flattened maps can't be concatenated")
        target = x.moved(tensor, group)
        settled = x == target and name not in node.inputs[:position]
        if not settled:
            found.copy(node, x, target, found.free(f"{node.name}.copy{position}"))
        lanes += target.lanes
        group += x.groups
    if (node.low, node.high) != (LEAST, MOST):
        raise CompileError("a clamp behind a concatenation has no place; put it before")
    found.done(node, Place(tensor, tuple(lanes), height, width, node.shape), min(found.least[name] for name in node.inputs))


def _place_slice(found: Placement, node: QuantizedNode) -> None:
    x, cut = found.places[node.inputs[0]], cut_of(node)
    dimension = node.attributes["dimension"]
    if dimension == 1 and (len(x.shape) == 4 or x.height * x.width == 1):
        view = replace(x, lanes=x.lanes[cut])
    elif dimension in (2, 3) and cut.step == 1:
        start = (cut.start, 0) if dimension == 2 else (0, cut.start)
        view = replace(x, y=x.y + start[0], x=x.x + start[1], height=node.shape[2], width=node.shape[3])
    else:
        raise CompileError("expected a slice of channels, or of rows or columns with step 1, "
                           f"got {dict(node.attributes)} of {list(x.shape)}")
    found.view(node, replace(view, shape=node.shape), found.least[node.inputs[0]])


def _place_reshape(found: Placement, node: QuantizedNode) -> None:
    x = found.places[node.inputs[0]]
    squeezed = x.height * x.width == 1 and node.shape[:2] == (1, len(x.lanes)) and prod(node.shape) == len(x.lanes)
    flattened = len(node.shape) == 2 and node.shape[0] == 1
    if not (squeezed or flattened):
        raise CompileError(f"expected a reshape that flattens a map to [1, C], got {list(x.shape)} to {list(node.shape)}")
    found.view(node, replace(x, shape=node.shape), found.least[node.inputs[0]])


def _place_pad(found: Placement, node: QuantizedNode) -> None:
    x = found.places[node.inputs[0]]
    a: Mapping[str, Any] = node.attributes
    if a["mode"] not in ("zeros", "constant") or (a["mode"] == "constant" and a["value"] != 0.0):
        raise CompileError(f"expected padding with zeros, got {dict(a)}")
    top, bottom, left, right = a["padding"]
    whole = found.extents[x.tensor]
    below, behind = whole.height - x.y - x.height, whole.width - x.x - x.width
    if any(inside > 0 and pad > 0 for inside, pad in ((x.y, top), (below, bottom), (x.x, left), (behind, right))):
        x = found.copied(node, x)
    view = replace(x, y=x.y - top, x=x.x - left, height=node.shape[2], width=node.shape[3], shape=node.shape)
    found.view(node, view, min(found.least[node.inputs[0]], 0))


PLACE: Mapping[str, Callable[[Placement, QuantizedNode], None]] = {
    **dict.fromkeys(("conv2d", "linear", "scale_shift"), _place_product),
    **dict.fromkeys(("max_pool2d", "adaptive_max_pool2d"), place_window),
    **dict.fromkeys(("average_pool2d", "adaptive_average_pool2d", "mean", "sum"), place_window),
    **dict.fromkeys(("add", "subtract", "activation"), _place_terms),
    "table": _place_table, "concat": _place_concat, "slice": _place_slice, "reshape": _place_reshape, "pad": _place_pad,
}
"""How nodes are placed, by operator."""
