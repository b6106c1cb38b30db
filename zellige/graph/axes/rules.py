"""What each operator does to labels, and what it demands: a rule for every operator that lets channels through.

An operator without a row freezes what it reads: to let it through is never wrong for want of a rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from zellige.graph.axes.labels import Labels, along, through_reshape
from zellige.graph.axes.walk import Layers, Operand, Reading, Walk, broadcast_operands, meet, vectors
from zellige.graph.ir import Node

Rule = Callable[[Walk, Node], Layers]

CHANNELS = 1
MAP = (2, 3)


def visit(walk: Walk, node: Node) -> None:
    """Labels the result of a node, its epilogue included."""
    layers, rank = RULES.get(node.op, _unknown)(walk, node), len(node.type.shape)
    for step in node.epilogue:
        if step.operand is not None:
            layers = meet(walk, node.name, rank, broadcast_operands(walk, [step.operand], rank), layers)
    walk.values[node.name] = layers


def _unknown(walk: Walk, node: Node) -> Layers:
    for name in node.inputs:
        walk.freeze(walk.layers(name), f"{node.op} ({node.name}) takes its inputs as they stand")
        if walk.is_constant(name):
            walk.read(name, {})
    return ()


def _convolution(walk: Walk, node: Node) -> Layers:
    source, weight, *bias = node.inputs
    if not walk.is_constant(weight):
        return _unknown(walk, node)
    groups: Any = node.attributes["groups"]
    outputs, columns = walk.shape(weight)[:2]
    reading: Reading = {}
    channels = _only_along(walk, node, source, CHANNELS)
    if groups > 1 and columns == 1:
        rows = None if channels is None else _repeated(channels, outputs // groups)
    else:
        rows = _made_by(walk, node, outputs)
        if rows is not None and groups > 1:
            walk.tag(node.name, rows, np.arange(outputs) // (outputs // groups))
        if channels is not None and groups == 1:
            reading[1,] = along(1, 4, channels.unit.ravel(), channels.place.ravel())
        elif channels is not None:
            reading[0, 1] = _columns_by_group(channels, outputs, columns, groups)
    if rows is not None:
        reading[0,] = along(0, 4, rows.unit, rows.place)
    walk.read(weight, reading)
    layers = () if rows is None else (along(CHANNELS, 4, rows.unit, rows.place),)
    return meet(walk, node.name, 4, vectors(bias, CHANNELS), layers)


def _only_along(walk: Walk, node: Node, source: str, dim: int) -> Labels | None:
    """A value's labels along one dimension; those along others, or several at once, are frozen."""
    found = None
    for labels in walk.layers(source):
        if labels.dims == (dim,):
            found = labels
        else:
            walk.freeze((labels,), f"{node.op} ({node.name}) runs over where they stand")
    return found


def _made_by(walk: Walk, node: Node, outputs: int) -> Labels | None:
    """The units that begin in a layer; outputs that are one unit, because they meet further on, are told apart by place."""
    if outputs == 1:
        return None
    unit = walk.units.find(walk.units.made_by(node.name, outputs))
    order = np.argsort(unit, kind="stable")
    ranked = unit[order]
    place = np.empty_like(unit)
    place[order] = np.arange(outputs) - np.searchsorted(ranked, ranked)
    return Labels(unit, place)


def _repeated(channels: Labels, times: int) -> Labels:
    """What a depthwise convolution makes of each channel."""
    unit, place = channels.unit.ravel().repeat(times), channels.place.ravel().repeat(times)
    return Labels(unit, place * times + np.tile(np.arange(times), channels.unit.size))


def _columns_by_group(channels: Labels, outputs: int, columns: int, groups: int) -> Labels:
    """The labels of a grouped convolution's columns, each of which every row of its group has for itself."""
    shape = (groups, outputs // groups, columns)
    unit, place = (np.broadcast_to(array.reshape(groups, 1, columns), shape) for array in (channels.unit, channels.place))
    row = np.arange(outputs).reshape(groups, -1, 1)
    return Labels(unit, place * outputs + row).reshaped((outputs, columns, 1, 1))


def _linear(walk: Walk, node: Node) -> Layers:
    source, weight, *bias = node.inputs
    if not walk.is_constant(weight):
        return _unknown(walk, node)
    rank = len(node.type.shape)
    last, layers, reading = rank - 1, [], Reading()
    for labels in walk.layers(source):
        if labels.dims == (last,):
            reading[1,] = along(1, 2, labels.unit.ravel(), labels.place.ravel())
        elif last in labels.dims:
            walk.freeze((labels,), f"linear ({node.name}) reads them along several dimensions")
        else:
            layers.append(labels)
    rows = _made_by(walk, node, walk.shape(weight)[0])
    if rows is not None:
        reading[0,] = along(0, 2, rows.unit, rows.place)
        layers.append(along(last, rank, rows.unit, rows.place))
    walk.read(weight, reading)
    return meet(walk, node.name, rank, vectors(bias, last), tuple(layers))


def _per_channel(walk: Walk, node: Node) -> Layers:
    """Batch norms and other vectors along the channels."""
    rank, (source, *parameters) = len(node.type.shape), node.inputs
    whole = [name for name in parameters if not walk.shape(name)]
    parts = vectors([name for name in parameters if walk.shape(name)], CHANNELS)
    return meet(walk, node.name, rank, [*broadcast_operands(walk, [source, *whole], rank), *parts])


def _elementwise(walk: Walk, node: Node) -> Layers:
    rank = len(node.type.shape)
    return meet(walk, node.name, rank, broadcast_operands(walk, node.inputs, rank))


def _over_the_map(walk: Walk, node: Node) -> Layers:
    """Pools and the like: channels by themselves, pixels where they stand."""
    kept = []
    for labels in walk.layers(node.inputs[0]):
        if set(labels.dims) & set(MAP):
            walk.freeze((labels,), f"{node.op} ({node.name}) runs over where they stand")
        else:
            kept.append(labels)
    return tuple(kept)


def _reduction(walk: Walk, node: Node) -> Layers:
    """A sum is the same in any order; what is summed apart stays apart."""
    over: Any = node.attributes["dimensions"]
    kept = []
    for labels in walk.layers(node.inputs[0]):
        if set(labels.dims) & set(over):
            walk.tag(node.name, labels, labels.coordinates([dim for dim in labels.dims if dim not in over]))
        else:
            kept.append(labels.reshaped(_reduced(labels.unit.shape, over, bool(node.attributes["keep"]))))
    return tuple(kept)


def _reduced(sizes: tuple[int, ...], over: tuple[int, ...], keep: bool) -> list[int]:
    return list(sizes) if keep else [size for dim, size in enumerate(sizes) if dim not in over]


def _softmax(walk: Walk, node: Node) -> Layers:
    """Along its dimension in any order; what is normalised apart stays apart."""
    dim: Any = node.attributes["dimension"]
    layers = walk.layers(node.inputs[0])
    for labels in layers:
        if dim in labels.dims and labels.dims != (dim,):
            walk.tag(node.name, labels, labels.coordinates([other for other in labels.dims if other != dim]))
    return layers


def _slice(walk: Walk, node: Node) -> Layers:
    """Units are told apart by what the slice takes of them."""
    a: Any = node.attributes
    kept = []
    for labels in walk.layers(node.inputs[0]):
        if a["dimension"] in labels.dims:
            labels = labels.taken(np.arange(a["start"], a["stop"], a["step"]), a["dimension"])
            walk.tag(node.name, labels)
        if labels.dims:
            kept.append(labels)
    return tuple(kept)


def _concat(walk: Walk, node: Node) -> Layers:
    """Parts stand one behind the other along one dimension, and meet along the others."""
    dim: Any = node.attributes["dimension"]
    rank = len(node.type.shape)
    parts = [Operand(name, tuple(range(rank)), tuple(labels for labels in walk.layers(name) if dim not in labels.dims))
             for name in node.inputs]
    beside = meet(walk, node.name, rank, parts)
    return _disjoint(walk, node, [*_joined(walk, node, dim), *beside])


def _joined(walk: Walk, node: Node, dim: int) -> Layers:
    """The layer along the joined dimension: that of each part in turn."""
    parts = [next((labels for labels in walk.layers(name) if dim in labels.dims), None) for name in node.inputs]
    real = [labels for labels in parts if labels is not None]
    if not real:
        return ()
    if len({labels.dims for labels in real}) > 1:
        walk.freeze(real, f"are joined along several dimensions in {node.name}")
        return ()
    unit, place = [], []
    for k, (name, labels) in enumerate(zip(node.inputs, parts, strict=True)):
        if labels is None:
            labels = _filler(walk, node, name, k, dim, real[0])
        unit.append(labels.unit)
        place.append(labels.place * len(parts) + k)
    return (Labels(np.concatenate(unit, dim), np.concatenate(place, dim)),)


def _filler(walk: Walk, node: Node, name: str, k: int, dim: int, like: Labels) -> Labels:
    """Labels for a part that no layer made: one frozen unit."""
    sizes = [walk.shape(name)[at] if at in like.dims else 1 for at in range(len(like.unit.shape))]
    unit = walk.units.made_by(f"{node.name}, part {k}", 1)
    walk.units.freeze(unit, f"{name} has no channels that could move")
    return Labels(np.broadcast_to(walk.units.find(unit), sizes), np.arange(math.prod(sizes)).reshape(sizes))


def _reshape(walk: Walk, node: Node) -> Layers:
    (source,) = node.inputs
    old, new = walk.shape(source), node.type.shape
    made = [through_reshape(labels, old, new) for labels in walk.layers(source)]
    return _disjoint(walk, node, [labels for labels in made if labels.dims])


def _disjoint(walk: Walk, node: Node, layers: Sequence[Labels]) -> Layers:
    """Where two layers come to vary along one dimension, neither can move."""
    dims = [dim for labels in layers for dim in labels.dims]
    mixed = [labels for labels in layers if any(dims.count(dim) > 1 for dim in labels.dims)]
    walk.freeze(mixed, f"are mixed with others in {node.name}")
    return tuple(labels for labels in layers if not any(labels is other for other in mixed))


def _transpose(walk: Walk, node: Node) -> Layers:
    order: Any = node.attributes["order"]
    return tuple(labels.transposed(order) for labels in walk.layers(node.inputs[0]))


def _channel_shuffle(walk: Walk, node: Node) -> Layers:
    groups: Any = node.attributes["groups"]
    channels = walk.shape(node.inputs[0])[CHANNELS]
    order = np.arange(channels).reshape(groups, -1).T.ravel()
    return tuple(labels.taken(order, CHANNELS) if CHANNELS in labels.dims else labels for labels in walk.layers(node.inputs[0]))


RULES: Mapping[str, Rule] = {
    "conv2d": _convolution,
    "linear": _linear,
    **dict.fromkeys(("batch_norm", "scale_shift", "prelu"), _per_channel),
    **dict.fromkeys(("activation", "add", "subtract", "multiply", "divide", "maximum", "minimum", "where"), _elementwise),
    **dict.fromkeys(("max_pool2d", "average_pool2d", "adaptive_average_pool2d", "adaptive_max_pool2d", "pad", "interpolate"),
                    _over_the_map),
    **dict.fromkeys(("mean", "sum"), _reduction),
    **dict.fromkeys(("softmax", "log_softmax"), _softmax),
    "concat": _concat,
    "slice": _slice,
    "reshape": _reshape,
    "transpose": _transpose,
    "channel_shuffle": _channel_shuffle,
}
