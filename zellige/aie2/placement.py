"""From a quantised graph to phases and host tensors: which operation a node is, and where its value goes.

Concatenations, slices, reshapes and padding with zeros are only places. What they can't be places for is copied, by a phase of its
own. Averages whose windows differ from place to place (at edges, or adaptive ones) are one phase for each rectangle where they don't.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod
from typing import Any

import numpy as np

from zellige.aie2.packet import GROUP, MAXIMUM, PRODUCT, SUM, TABLE
from zellige.aie2.phase import Array, Phase, Region, Taps
from zellige.aie2.taps import diagonal_taps, product_taps, window_taps
from zellige.aie2.tensor import Lanes, Place, Tensor
from zellige.errors import CompileError
from zellige.graph.fixed_point import LEAST, MOST, Rescale
from zellige.graph.quantized import QuantizedGraph, QuantizedNode

ONE = Rescale((np.asarray(1),), np.asarray(0))
"""What moves are rescaled by."""


@dataclass(frozen=True)
class Extent:
    """What a host tensor must hold, margins apart; ``constant`` is where it holds what from the start."""

    groups: int
    height: int
    width: int
    constant: tuple[Place, Array] | None = None


@dataclass
class Placement:
    """A network as phases in their order, the extents of host tensors, and the places of all values; ``least`` is a bound of theirs."""

    graph: QuantizedGraph
    phases: list[Phase] = field(default_factory=list)
    extents: dict[str, Extent] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    least: dict[str, int] = field(default_factory=dict)
    homes: dict[str, tuple[str, int]] = field(default_factory=dict)
    """For members of concatenations: the tensor and the group from which on they lie."""


def place(graph: QuantizedGraph) -> Placement:
    """The phases and places of a network. Raises ``CompileError`` naming the first node that can't be placed."""
    found = Placement(graph)
    for name, shape in graph.inputs.items():
        _new(found, name, shape)
    for name, array in graph.constants.items():
        where = _new(found, name, array.shape)
        found.extents[name] = replace(found.extents[name], constant=(where, array))
    lanes = _lanes_of_all(found)
    for node in reversed(list(graph)):
        if node.op == "concat":
            _settle(found, node, lanes)
    for node in graph:
        try:
            PLACE[node.op](found, node)
        except (CompileError, KeyError) as error:
            fault = f"AIE2 runs {', '.join(PLACE)}" if isinstance(error, KeyError) else str(error)
            raise CompileError(f"node {node.name!r} ({node.op}, from module {node.origin or 'unknown'}) can't run on AIE2: {fault}") from None
    _settle_margins(found)
    return found


def _map_of(shape: Sequence[int]) -> tuple[int, int, int]:
    """Channels, height and width of a value."""
    if len(shape) not in (2, 4) or shape[0] != 1:
        raise CompileError(f"expected a value of [1, C] or [1, C, H, W], got {list(shape)}; only batches of one image are lowered")
    channels, height, width = (*shape[1:], 1, 1)[:3]
    return channels, height, width


def _new(found: Placement, name: str, shape: Sequence[int]) -> Place:
    """A value with a tensor of its own, its channels one after another."""
    try:
        channels, height, width = _map_of(shape)
    except CompileError as error:
        raise CompileError(f"value {name!r}: {error}") from None
    found.extents[name] = Extent(-(-channels // GROUP), height, width)
    found.places[name] = Place(name, tuple(range(channels)), height, width, tuple(shape))
    found.least[name] = LEAST
    return found.places[name]


def _based(lanes: Lanes) -> Lanes:
    """Lanes counted from the first group that they need."""
    first = min(lanes) // GROUP * GROUP
    return tuple(lane - first for lane in lanes)


def _lanes_of_all(found: Placement) -> dict[str, Lanes]:
    """For every value its lanes, counted from its own first group: known before anything has a place."""
    lanes = {name: where.lanes for name, where in found.places.items()}
    for node in found.graph:
        if node.op == "concat" and node.attributes["dimension"] == 1:
            lanes[node.name] = _joined([lanes[name] for name in node.inputs])
        elif node.op == "slice" and node.attributes["dimension"] == 1:
            lanes[node.name] = _based(lanes[node.inputs[0]][_cut(node)])
        elif node.op in ("conv2d", "linear") and not _depthwise(node):
            lanes[node.name] = tuple(range(node.shape[1] if len(node.shape) > 1 else 0))
        else:
            lanes[node.name] = lanes[node.inputs[0]]
    return lanes


def _joined(parts: Sequence[Lanes]) -> Lanes:
    joined: list[int] = []
    first = 0
    for part in parts:
        joined += [first + lane for lane in part]
        first += GROUP * (max(part) // GROUP + 1)
    return tuple(joined)


def _cut(node: QuantizedNode) -> slice:
    a: Mapping[str, Any] = node.attributes
    return slice(a["start"], a["stop"], a["step"])


def _depthwise(node: QuantizedNode) -> bool:
    weight = node.weight
    return node.op == "conv2d" and weight is not None and weight.shape[:2] == (node.attributes["groups"], 1) and len(weight) > 1


VIEWS = ("slice", "reshape", "pad")


def _settle(found: Placement, node: QuantizedNode, lanes: Mapping[str, Lanes]) -> None:
    """Give the members of a concatenation homes in its tensor, where they are phases' results and have none yet."""
    tensor, group = found.homes.get(node.name, (node.name, 0))
    for name in node.inputs:
        made = found.graph.nodes.get(name)
        if made is not None and made.op not in VIEWS:
            found.homes.setdefault(name, (tensor, group))
        group += max(lanes[name]) // GROUP + 1
    if node.name not in found.homes:
        _, height, width = _map_of(node.shape)
        found.extents[node.name] = Extent(group, height, width)


def _target(found: Placement, name: str, lanes: Lanes, height: int, width: int, shape: tuple[int, ...]) -> Place:
    """Where a phase's result goes: home, or to a tensor of its own. ``lanes`` count from its first group."""
    if name in found.homes:
        tensor, group = found.homes[name]
    else:
        tensor, group = name, 0
        found.extents[name] = Extent(max(lanes) // GROUP + 1, height, width)
    return Place(tensor, lanes, height, width, shape).moved(tensor, group)


def _region(where: Place, y: int = 0, x: int = 0) -> Region:
    return Region(where.tensor, where.group, where.groups, where.y + y, where.x + x)


def _per_lane(array: Array, node: QuantizedNode, lanes: Lanes, at: tuple[int, int], name: str) -> Array:
    """A number for each channel at one pixel of the result, as int32 [groups, 8] over its lanes; zeros elsewhere."""
    found = np.zeros((max(lanes) // GROUP + 1) * GROUP, np.int64)
    if array.size == 1:
        found[:] = array.reshape(-1)[0]
    else:
        whole = np.broadcast_to(array, node.shape)
        whole = whole.reshape(node.shape[1], *node.shape[2:], *(1,) * (4 - len(node.shape)))
        if len(lanes) != len(whole):
            raise CompileError("what differs from channel to channel can't be rescaled behind a reshape")
        found[list(lanes)] = whole[:, at[0], at[1]]
    if np.any(np.abs(found) > 2**31 - 1):
        raise CompileError(f"its {name} must fit 32 bits, got {found.min()} … {found.max()}; quantise with powers of two")
    return found.astype(np.int32).reshape(-1, GROUP)


def _phase(found: Placement, node: QuantizedNode, operation: int, source: Region, target: Place, taps: Taps,
           size: tuple[int, int], at: tuple[int, int] = (0, 0), name: str = "", **other: Any) -> None:
    """Add a phase, whose rescaling is that of the node at the pixel ``at`` of its result."""
    rescale, lanes = node.rescale or ONE, _based(target.lanes)
    multiplier, *second = (_per_lane(one, node, lanes, at, "multiplier") for one in rescale.multipliers)
    zeros = np.zeros_like(multiplier)
    bias = zeros.copy()
    if node.bias is not None:
        bias.reshape(-1)[list(lanes)] = node.bias
    found.phases.append(Phase(
        name or node.name, node.name, operation, source, replace(_region(target), y=target.y + at[0], x=target.x + at[1]), *size, taps,
        multiplier, _per_lane(rescale.shift, node, lanes, at, "shift"), bias, second[0] if second else zeros,
        low=node.low, high=node.high, **other))  # fmt: skip


def _place_product(found: Placement, node: QuantizedNode) -> None:
    a, x = node.attributes, found.places[node.inputs[0]]
    assert node.weight is not None
    if a.get("padding_mode", "zeros") != "zeros":
        raise CompileError(f"expected padding with zeros, got {a['padding_mode']!r}")
    weight, stride, padding, dilation = node.weight, a.get("stride", (1, 1)), a.get("padding", (0, 0, 0, 0)), a.get("dilation", (1, 1))
    if node.op == "linear":
        if len(node.shape) != 2:
            raise CompileError(f"expected a linear layer on [1, C], got a result of {list(node.shape)}")
        weight = weight.reshape(len(weight), len(x.lanes), x.height, x.width)
    _, height, width = _map_of(node.shape)
    lanes = _based(x.lanes)
    own = node.op == "scale_shift" or _depthwise(node)
    if own:
        weight = weight.reshape(len(weight), *(weight.shape[2:] if weight.ndim == 4 else (1, 1)))
        taps = diagonal_taps(weight, dilation, lanes, x.groups)  # type: ignore[arg-type]
    else:
        taps = product_taps(weight, int(a.get("groups", 1)), dilation, lanes)  # type: ignore[call-overload, arg-type]
    window = tuple((size - 1) * step + 1 for size, step in zip(weight.shape[-2:], dilation, strict=True))  # type: ignore[arg-type]
    target = _target(found, node.name, lanes if own else tuple(range(node.shape[1])), height, width, node.shape)
    source, _ = _windowed(found, node, x, (-padding[0], -padding[2]), (height, width), stride, window)  # type: ignore
    residual = _second(found, node, target) if len(node.inputs) == 2 else None
    _phase(found, node, PRODUCT, source, target, taps, (height, width), stride=stride, window=window, residual=residual, own=own)
    _done(found, node, target, node.low)


def _done(found: Placement, node: QuantizedNode, where: Place, least: int) -> None:
    found.places[node.name], found.least[node.name] = where, least


def _windowed(found: Placement, node: QuantizedNode, x: Place, start: tuple[int, int], size: tuple[int, int],
              stride: tuple[int, int], window: tuple[int, int], fill: int | None = 0) -> tuple[Region, int | None]:
    """The region under the windows of ``size`` results, and what its margins must hold, where ``fill`` is meant beyond the edges of the
    place. The place is copied first, if its tensor has something else there."""
    extent, beyond, other = found.extents[x.tensor], False, False
    axes = zip(start, (x.y, x.x), (x.height, x.width), (extent.height, extent.width), size, stride, window, strict=True)
    for first, at, length, whole, count, step, reach in axes:
        before, behind = first < 0, first + (count - 1) * step + reach > length
        padded = at < 0 or at + length > whole
        beyond |= before or behind
        other |= (before and at > 0) or (behind and at + length < whole) or (fill != 0 and padded)
    if beyond and other:
        x = _copied(found, node, x)
    return _region(x, *start), fill if beyond else 0


def _copied(found: Placement, node: QuantizedNode, x: Place) -> Place:
    """A copy of a place, in a tensor of its own, made for a node."""
    name = _free(found, f"{node.name}.copy")
    found.extents[name] = Extent(x.groups, x.height, x.width)
    target = replace(x.moved(name, 0))
    _copy(found, node, x, target, name)
    return target


def _copy(found: Placement, node: QuantizedNode, x: Place, target: Place, name: str) -> None:
    plain = QuantizedNode(node.name, "copy", (), (1, len(x.lanes), x.height, x.width))
    _phase(found, plain, MAXIMUM, _region(x), target, window_taps(x.groups, (1, 1)), (x.height, x.width), name=name)


def _free(found: Placement, name: str) -> str:
    taken = {phase.name for phase in found.phases} | found.extents.keys() | found.graph.nodes.keys()
    while name in taken:
        name += "_"
    return name


def _second(found: Placement, node: QuantizedNode, target: Place) -> Region:
    """The region of a second operand, which must lie as the result does."""
    y = found.places[node.inputs[1]]
    if (y.height, y.width, len(y.lanes)) != (target.height, target.width, len(target.lanes)):
        raise CompileError(f"expected a second operand of the result's shape {list(node.shape)}, got {list(y.shape)}")
    if _based(y.lanes) != _based(target.lanes):
        y = _gathered(found, node, y, _based(target.lanes))
    return _region(y)


def _gathered(found: Placement, node: QuantizedNode, x: Place, lanes: Lanes) -> Place:
    """A copy of a place with its channels in other lanes: a product with ones."""
    name = _free(found, f"{node.name}.gather")
    weight = np.zeros((max(lanes) + 1, len(lanes), 1, 1), np.int8)
    weight[lanes, range(len(lanes))] = 1
    taps = product_taps(weight, 1, (1, 1), _based(x.lanes))
    found.extents[name] = Extent(len(taps.ends) - 1, x.height, x.width)
    target = Place(name, lanes, x.height, x.width, x.shape)
    plain = QuantizedNode(node.name, "gather", (), (1, len(lanes), x.height, x.width))
    _phase(found, plain, PRODUCT, _region(x), target, taps, (x.height, x.width), name=name, own=False)
    return target


@dataclass(frozen=True)
class _Run:
    """Results ``first`` … of one axis whose windows are alike: the first begins at ``start``, each ``step`` further, and they
    are ``reach`` long."""

    first: int
    count: int
    start: int
    step: int
    reach: int


def _alike(starts: Sequence[int], reaches: Sequence[int], keys: Sequence[Any]) -> Iterator[_Run]:
    first = 0
    while first < len(starts):
        count, step = 1, 1
        while first + count < len(starts):
            at = first + count
            further = starts[at] - starts[at - 1]
            if (reaches[at], keys[at]) != (reaches[first], keys[first]) or (count > 1 and further != step):
                break
            step, count = further, count + 1
        yield _Run(first, count, starts[first], step, reaches[first])
        first += count


def _windows(node: QuantizedNode, x: Place) -> list[tuple[list[int], list[int]]]:
    """For both axes: where the window of each result begins, and how many pixels it covers."""
    a: Mapping[str, Any] = node.attributes
    size = (x.height, x.width)
    if node.op in ("mean", "sum"):
        return [([0], [length]) for length in size]
    if node.op.startswith("adaptive"):
        return [([i * s // n for i in range(n)], [-(-(i + 1) * s // n) - i * s // n for i in range(n)])
                for s, n in zip(size, a["size"], strict=True)]
    return [([i * step - before for i in range(count)], [(kernel - 1) * gap + 1] * count) for step, before, count, kernel, gap in
            zip(a["stride"], a["padding"][::2], node.shape[2:], a["kernel"], a.get("dilation", (1, 1)), strict=True)]


def _keys(node: QuantizedNode, axis: int) -> list[bytes]:
    """What the rescaling says of each row (axis 2) or column (3) of the result."""
    arrays = [] if node.rescale is None else [*node.rescale.multipliers, node.rescale.shift]
    varying = [np.broadcast_to(array, node.shape) for array in arrays if array.ndim > 4 - axis - 1 and array.shape[axis - 4] > 1]
    return [b"".join(array.take(i, axis).tobytes() for array in varying) for i in range(node.shape[axis])]


def _place_window(found: Placement, node: QuantizedNode) -> None:
    """Pools, averages and sums over maps."""
    x = found.places[node.inputs[0]]
    if node.op in ("mean", "sum") and (tuple(node.attributes["dimensions"]) != (2, 3) or len(x.shape) != 4):  # type: ignore[arg-type]
        raise CompileError(f"expected a reduction over dimensions (2, 3) of a map, got {node.attributes['dimensions']} of {list(x.shape)}")
    maximum = "max" in node.op
    size = (1, 1) if node.op in ("mean", "sum") else (node.shape[2], node.shape[3])
    axes = [list(_alike(starts, reaches, _keys(node, axis) if len(node.shape) == 4 else [b""] * length)) for
            (starts, reaches), axis, length in zip(_windows(node, x), (2, 3), size, strict=True)]
    least = max(found.least[node.inputs[0]], node.low)
    lanes = _based(x.lanes)
    if _changes_nothing(node, x, axes):
        _view(found, node, replace(x, shape=node.shape), found.least[node.inputs[0]])
        return
    target = _target(found, node.name, lanes, *size, node.shape)
    dilation = node.attributes.get("dilation", (1, 1))
    fill = 0 if not maximum else None if found.least[node.inputs[0]] >= 0 else LEAST
    for number, (down, along) in enumerate(product(*axes)):
        kernel = [(run.reach - 1) // gap + 1 for run, gap in zip((down, along), dilation, strict=True)]  # type: ignore[arg-type]
        window, stride = (down.reach, along.reach), (down.step, along.step)
        source, margin = _windowed(found, node, x, (down.start, along.start), (down.count, along.count), stride, window, fill)
        name = node.name if len(axes[0]) * len(axes[1]) == 1 else f"{node.name}.{number}"
        _phase(found, node, MAXIMUM if maximum else SUM, source, target, window_taps(x.groups, kernel, dilation),  # type: ignore[arg-type]
               (down.count, along.count), (down.first, along.first), name, stride=stride, window=window, fill=margin)
    _done(found, node, target, least)


def _changes_nothing(node: QuantizedNode, x: Place, axes: Sequence[Sequence[_Run]]) -> bool:
    """A window of one pixel on each, neither rescaled nor clamped: only another name."""
    still = all(len(runs) == 1 and (runs[0].start, runs[0].reach) == (0, 1) and (runs[0].step == 1 or runs[0].count == 1)
                and runs[0].count == length for runs, length in zip(axes, (x.height, x.width), strict=True))
    rescale = node.rescale or ONE
    plain = all(np.all(one == 1) for one in rescale.multipliers) and not np.any(rescale.shift)
    return still and plain and (node.low, node.high) == (LEAST, MOST)


def _place_terms(found: Placement, node: QuantizedNode) -> None:
    """Additions, subtractions and clamps."""
    x = found.places[node.inputs[0]]
    if prod(x.shape) != prod(node.shape):
        raise CompileError(f"expected operands of the result's shape {list(node.shape)}, got {list(x.shape)}")
    target = _target(found, node.name, _based(x.lanes), x.height, x.width, node.shape)
    residual = _second(found, node, target) if len(node.inputs) == 2 else None
    _phase(found, node, SUM, _region(x), target, window_taps(x.groups, (1, 1)), (x.height, x.width), residual=residual)
    _done(found, node, target, node.low)


def _place_table(found: Placement, node: QuantizedNode) -> None:
    x = found.places[node.inputs[0]]
    assert node.table is not None
    if node.table.ndim != 1:
        raise CompileError("expected one table for all channels, got one for each")
    target = _target(found, node.name, _based(x.lanes), x.height, x.width, node.shape)
    _phase(found, node, TABLE, _region(x), target, window_taps(x.groups, (1, 1)), (x.height, x.width), table=node.table)
    _done(found, node, target, int(node.table.min()))


def _place_concat(found: Placement, node: QuantizedNode) -> None:
    if node.attributes["dimension"] != 1:
        raise CompileError(f"expected a concatenation of channels, got one over dimension {node.attributes['dimension']}")
    tensor, group = found.homes.get(node.name, (node.name, 0))
    lanes: list[int] = []
    _, height, width = _map_of(node.shape)
    for position, name in enumerate(node.inputs):
        x = found.places[name]
        if len(x.shape) == 2 and x.height * x.width > 1:
            raise CompileError("flattened maps can't be concatenated")
        target = x.moved(tensor, group)
        settled = x == target and name not in node.inputs[:position]
        if not settled:
            _copy(found, node, x, target, _free(found, f"{node.name}.copy{position}"))
        lanes += target.lanes
        group += x.groups
    if (node.low, node.high) != (LEAST, MOST):
        raise CompileError("a clamp behind a concatenation has no place; put it before")
    _done(found, node, Place(tensor, tuple(lanes), height, width, node.shape), min(found.least[name] for name in node.inputs))


def _place_slice(found: Placement, node: QuantizedNode) -> None:
    x, cut = found.places[node.inputs[0]], _cut(node)
    dimension = node.attributes["dimension"]
    if dimension == 1 and (len(x.shape) == 4 or x.height * x.width == 1):
        view = replace(x, lanes=x.lanes[cut])
    elif dimension in (2, 3) and cut.step == 1:
        view = replace(x, y=x.y + cut.start, height=node.shape[2]) if dimension == 2 else replace(x, x=x.x + cut.start, width=node.shape[3])
    else:
        raise CompileError(f"expected a slice of channels, or of rows or columns with step 1, got {dict(node.attributes)} of {list(x.shape)}")
    _view(found, node, replace(view, shape=node.shape), found.least[node.inputs[0]])


def _place_reshape(found: Placement, node: QuantizedNode) -> None:
    x = found.places[node.inputs[0]]
    squeezed = x.height * x.width == 1 and node.shape[:2] == (1, len(x.lanes)) and prod(node.shape) == len(x.lanes)
    flattened = len(node.shape) == 2 and node.shape[0] == 1
    if not (squeezed or flattened):
        raise CompileError(f"expected a reshape that flattens a map to [1, C], got {list(x.shape)} to {list(node.shape)}")
    _view(found, node, replace(x, shape=node.shape), found.least[node.inputs[0]])


def _place_pad(found: Placement, node: QuantizedNode) -> None:
    x, a = found.places[node.inputs[0]], node.attributes
    if a["mode"] not in ("zeros", "constant") or (a["mode"] == "constant" and a["value"] != 0.0):
        raise CompileError(f"expected padding with zeros, got {dict(a)}")
    top, bottom, left, right = a["padding"]  # type: ignore[misc]
    whole = found.extents[x.tensor]
    if (x.y > 0 and top > 0) or (x.x > 0 and left > 0) or (x.y + x.height < whole.height and bottom > 0) or (
            x.x + x.width < whole.width and right > 0):
        x = _copied(found, node, x)
    view = replace(x, y=x.y - top, x=x.x - left, height=node.shape[2], width=node.shape[3], shape=node.shape)
    _view(found, node, view, min(found.least[node.inputs[0]], 0))


def _view(found: Placement, node: QuantizedNode, view: Place, least: int) -> None:
    """A value that is part of another's tensor; a clamp is a phase of its own."""
    if (node.low, node.high) == (LEAST, MOST) and node.name not in found.homes:
        _done(found, node, view, least)
        return
    target = _target(found, node.name, _based(view.lanes), view.height, view.width, node.shape)
    _phase(found, replace(node, rescale=None), SUM, _region(view), target, window_taps(view.groups, (1, 1)), (view.height, view.width))
    _done(found, node, target, max(least, node.low))


def margin_reads(phase: Phase) -> list[tuple[Region, int, int]]:
    """What a phase reads of host tensors: regions, with their rows and columns."""
    reads = [(phase.source, *phase.reads(phase.height, phase.width))]
    return reads if phase.residual is None else [*reads, (phase.residual, phase.height, phase.width)]


def margins(region: Region, rows: int, columns: int, extent: Extent) -> tuple[int, int, int, int]:
    """How far beyond the edges of its tensor a region reaches: top, bottom, left, right."""
    return (max(0, -region.y), max(0, region.y + rows - extent.height), max(0, -region.x), max(0, region.x + columns - extent.width))


def _margins_of(where: Place, found: Placement) -> tuple[int, int, int, int]:
    return margins(_region(where), where.height, where.width, found.extents[where.tensor])


def _settle_margins(found: Placement) -> None:
    """Maxima that need margins of −128 where others need zeros get a copy of their input."""
    zeros = {where.tensor for where in found.places.values() if any(_margins_of(where, found))}
    zeros |= {region.tensor for phase in found.phases for region, rows, columns in margin_reads(phase)
             if any(margins(region, rows, columns, found.extents[region.tensor])) and phase.fill == 0}
    phases = []
    for phase in found.phases:
        source, extent = phase.source, found.extents[phase.source.tensor]
        if phase.fill == LEAST and source.tensor in zeros and any(margins(source, *phase.reads(phase.height, phase.width), extent)):
            name = _free(found, f"{phase.name}.copy")
            found.extents[name] = Extent(source.groups, extent.height, extent.width)
            ones, none = np.ones((source.groups, GROUP), np.int32), np.zeros((source.groups, GROUP), np.int32)
            phases.append(Phase(name, phase.node, MAXIMUM, replace(source, y=0, x=0), Region(name, 0, source.groups), extent.height,
                                extent.width, window_taps(source.groups, (1, 1)), ones, none, none, none, fill=None))
            phase = replace(phase, source=replace(source, tensor=name, group=0))
        phases.append(phase)
    found.phases = phases


def tensors_of(found: Placement, slack: Mapping[str, int] | None = None) -> dict[str, Tensor]:
    """The host tensors, with margins for all that phases read of them, and ``slack`` bytes behind."""
    wide: dict[str, list[tuple[int, int, int, int]]] = {name: [(0, 0, 0, 0)] * 2 for name in found.extents}
    fills: dict[str, int] = {}
    for where in found.places.values():
        wide[where.tensor].append(_margins_of(where, found))
    for phase in found.phases:
        for region, rows, columns in margin_reads(phase):
            wide[region.tensor].append(margins(region, rows, columns, found.extents[region.tensor]))
        if phase.fill == LEAST:
            fills[phase.source.tensor] = LEAST
    return {name: Tensor(name, extent.groups, extent.height, extent.width, tuple(map(max, *wide[name])),  # type: ignore
                         fills.get(name, 0), (slack or {}).get(name, 0))
            for name, extent in found.extents.items()}


PLACE: Mapping[str, Callable[[Placement, QuantizedNode], None]] = {
    **dict.fromkeys(("conv2d", "linear", "scale_shift"), _place_product),
    **dict.fromkeys(("max_pool2d", "adaptive_max_pool2d", "average_pool2d", "adaptive_average_pool2d", "mean", "sum"), _place_window),
    **dict.fromkeys(("add", "subtract", "activation"), _place_terms),
    "table": _place_table, "concat": _place_concat, "slice": _place_slice, "reshape": _place_reshape, "pad": _place_pad,
}
"""How nodes are placed, by operator."""
