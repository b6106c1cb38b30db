"""Windows over maps: pools, averages and sums. Where the windows of an average differ from place to place, at edges or as adaptive
ones do, it is a phase for each rectangle in which they don't."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from zellige.aie2.lowering.placement import ONE, Placement, based
from zellige.aie2.lowering.taps import window_taps
from zellige.aie2.packet import MAXIMUM, SUM
from zellige.aie2.tensor import Place
from zellige.errors import CompileError
from zellige.graph.fixed_point import LEAST, MOST
from zellige.graph.quantized import QuantizedNode


@dataclass(frozen=True)
class _Run:
    """Results ``first`` … of one axis whose windows are alike: the first begins at ``start``, each ``step`` further, and they
    are ``reach`` long."""

    first: int
    count: int
    start: int
    step: int
    reach: int


def _alike(starts: Sequence[int], reaches: Sequence[int], keys: Sequence[Any], least: int) -> Iterator[_Run]:
    """Runs whose steps are ``least`` or more: columns that read the same pixels are none, as pixels lie side by side for cores."""
    first = 0
    while first < len(starts):
        count, step = 1, 1
        while first + count < len(starts):
            at = first + count
            further = starts[at] - starts[at - 1]
            same = (reaches[at], keys[at]) == (reaches[first], keys[first])
            if not same or (count > 1 and further != step) or further < least:
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


def _changes_nothing(node: QuantizedNode, x: Place, axes: Sequence[Sequence[_Run]]) -> bool:
    """A window of one pixel on each, neither rescaled nor clamped: only another name."""
    still = all(len(runs) == 1 and (runs[0].start, runs[0].reach) == (0, 1) and (runs[0].step == 1 or runs[0].count == 1)
                and runs[0].count == length for runs, length in zip(axes, (x.height, x.width), strict=True))
    rescale = node.rescale or ONE
    plain = all(np.all(one == 1) for one in rescale.multipliers) and not np.any(rescale.shift)
    return still and plain and (node.low, node.high) == (LEAST, MOST)


def place_window(found: Placement, node: QuantizedNode) -> None:
    """Pools, averages and sums over maps."""
    x = found.places[node.inputs[0]]
    a: Mapping[str, Any] = node.attributes
    if node.op in ("mean", "sum") and (tuple(a["dimensions"]) != (2, 3) or len(x.shape) != 4):
        raise CompileError(f"expected a reduction over dimensions (2, 3) of a map, got {a['dimensions']} of {list(x.shape)}")
    maximum = "max" in node.op
    size = (1, 1) if node.op in ("mean", "sum") else (node.shape[2], node.shape[3])
    axes = [list(_alike(starts, reaches, _keys(node, axis) if len(node.shape) == 4 else [b""] * length, axis - 2)) for
            (starts, reaches), axis, length in zip(_windows(node, x), (2, 3), size, strict=True)]
    least = max(found.least[node.inputs[0]], node.low)
    lanes = based(x.lanes)
    if _changes_nothing(node, x, axes):
        found.view(node, replace(x, shape=node.shape), found.least[node.inputs[0]])
        return
    target = found.target(node.name, lanes, *size, node.shape)
    dilation = a.get("dilation", (1, 1))
    fill = 0 if not maximum else None if found.least[node.inputs[0]] >= 0 else LEAST
    for number, (down, along) in enumerate(product(*axes)):
        kernel = [(run.reach - 1) // gap + 1 for run, gap in zip((down, along), dilation, strict=True)]
        window, stride = (down.reach, along.reach), (down.step, along.step)
        size = (down.count, along.count)
        source, margin = found.windowed(node, x, (down.start, along.start), size, stride, window, fill)
        name = node.name if len(axes[0]) * len(axes[1]) == 1 else f"{node.name}.{number}"
        found.add(node, MAXIMUM if maximum else SUM, source, target, window_taps(x.groups, kernel, dilation),
               (down.count, along.count), (down.first, along.first), name, stride=stride, window=window, fill=margin)
    found.done(node, target, least)
