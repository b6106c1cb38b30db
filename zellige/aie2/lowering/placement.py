"""A network as it is placed: phases in their order, host tensors, and where all values lie. ``place.py`` fills it in, node by
node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from zellige.aie2.lowering.taps import product_taps, window_taps
from zellige.aie2.packet import GROUP, MAXIMUM, PRODUCT, SUM
from zellige.aie2.phase import Array, Phase, Region, Taps
from zellige.aie2.tensor import Lanes, Place
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


def map_of(shape: Sequence[int]) -> tuple[int, int, int]:
    """Channels, height and width of a value."""
    if len(shape) not in (2, 4):
        raise CompileError(f"expected a value of [1, C] or [1, C, H, W], got {list(shape)}; only channels and maps of them are "
                           "lowered, in batches of one image")
    if shape[0] != 1:
        raise CompileError(f"expected a value of [1, C] or [1, C, H, W], got {list(shape)}; only batches of one image are lowered")
    channels, height, width = (*shape[1:], 1, 1)[:3]
    return channels, height, width


def based(lanes: Lanes) -> Lanes:
    """Lanes counted from the first group that they need."""
    first = min(lanes) // GROUP * GROUP
    return tuple(lane - first for lane in lanes)


def region(where: Place, y: int = 0, x: int = 0) -> Region:
    return Region(where.tensor, where.group, where.groups, where.y + y, where.x + x)


def _per_lane(array: Array, node: QuantizedNode, lanes: Lanes, at: tuple[int, int], name: str) -> Array:
    """A number for each channel at one pixel of the result, as int32 [groups, 8] over its lanes; elsewhere one of the same group's,
    so that groups whose channels are rescaled alike stay so."""
    found = np.zeros((max(lanes) // GROUP + 1) * GROUP, np.int64)
    if array.size == 1:
        found[:] = array.reshape(-1)[0]
    else:
        whole = np.broadcast_to(array, node.shape)
        whole = whole.reshape(node.shape[1], *node.shape[2:], *(1,) * (4 - len(node.shape)))
        if len(lanes) != len(whole):
            raise CompileError("what differs from channel to channel can't be rescaled behind a reshape")
        found[list(lanes)] = whole[:, at[0], at[1]]
        used = np.zeros(found.shape, bool)
        used[list(lanes)] = True
        grouped = used.reshape(-1, GROUP)
        of_group = np.take_along_axis(found.reshape(-1, GROUP), grouped.argmax(axis=1)[:, None], axis=1)
        found = np.where(grouped, found.reshape(-1, GROUP), of_group).reshape(-1)
    if np.any(np.abs(found) > 2**31 - 1):
        raise CompileError(f"its {name} must fit 32 bits, got {found.min()} … {found.max()}; quantise with powers of two")
    return found.astype(np.int32).reshape(-1, GROUP)


@dataclass
class Placement:
    """A network as phases in their order, the extents of host tensors, and the places of all values.

    ``least`` is a lower bound of each value. ``homes``: for members of concatenations, the tensor and the group from which on they
    lie. ``lanes`` of values count from their own first groups, and are known before they have places.
    """

    graph: QuantizedGraph
    phases: list[Phase] = field(default_factory=list)
    extents: dict[str, Extent] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    least: dict[str, int] = field(default_factory=dict)
    homes: dict[str, tuple[str, int]] = field(default_factory=dict)
    lanes: dict[str, Lanes] = field(default_factory=dict)

    def new(self, name: str, shape: Sequence[int]) -> Place:
        """A value with a tensor of its own, its channels one after another."""
        try:
            channels, height, width = map_of(shape)
        except CompileError as error:
            raise CompileError(f"value {name!r}: {error}") from None
        self.extents[name] = Extent(-(-channels // GROUP), height, width)
        self.places[name] = Place(name, tuple(range(channels)), height, width, tuple(shape))
        self.least[name] = LEAST
        return self.places[name]

    def target(self, name: str, lanes: Lanes, height: int, width: int, shape: tuple[int, ...]) -> Place:
        """Where a phase's result goes: home, or to a tensor of its own. ``lanes`` count from its first group."""
        if name in self.homes:
            tensor, group = self.homes[name]
        else:
            tensor, group = name, 0
            self.extents[name] = Extent(max(lanes) // GROUP + 1, height, width)
        return Place(tensor, lanes, height, width, shape).moved(tensor, group)

    def add(self, node: QuantizedNode, operation: int, source: Region, target: Place, taps: Taps, size: tuple[int, int],
            at: tuple[int, int] = (0, 0), name: str = "", **other: Any) -> None:
        """Add a phase, whose rescaling is that of the node at the pixel ``at`` of its result."""
        rescale, lanes = node.rescale or ONE, based(target.lanes)
        multiplier, *second = (_per_lane(one, node, lanes, at, "multiplier") for one in rescale.multipliers)
        zeros = np.zeros_like(multiplier)
        bias = zeros.copy()
        if node.bias is not None:
            bias.reshape(-1)[list(lanes)] = node.bias
        shift = _per_lane(rescale.shift, node, lanes, at, "shift")
        self.phases.append(Phase(
            name or node.name, node.name, operation, source, region(target, *at), *size, taps, multiplier, shift, bias,
            second[0] if second else zeros, low=node.low, high=node.high, **other))  # fmt: skip

    def done(self, node: QuantizedNode, where: Place, least: int) -> None:
        """Note where a node's value is."""
        self.places[node.name], self.least[node.name] = where, least

    def windowed(self, node: QuantizedNode, x: Place, start: Sequence[int], size: Sequence[int], stride: Sequence[int],
                 window: Sequence[int], fill: int | None = 0) -> tuple[Region, int | None]:
        """The region under the windows of ``size`` results, and what its margins must hold, where ``fill`` is meant beyond the
        edges of the place. The place is copied first, if its tensor has something else there."""
        extent, beyond, other = self.extents[x.tensor], False, False
        axes = zip(start, (x.y, x.x), (x.height, x.width), (extent.height, extent.width), size, stride, window, strict=True)
        for first, at, length, whole, count, step, reach in axes:
            before, behind = first < 0, first + (count - 1) * step + reach > length
            padded = at < 0 or at + length > whole
            beyond |= before or behind
            other |= (before and at > 0) or (behind and at + length < whole) or (fill != 0 and padded)
        if beyond and other:
            x = self.copied(node, x)
        return region(x, *start), fill if beyond else 0

    def copied(self, node: QuantizedNode, x: Place) -> Place:
        """A copy of a place, in a tensor of its own, made for a node."""
        name = self.free(f"{node.name}.copy")
        self.extents[name] = Extent(x.groups, x.height, x.width)
        target = x.moved(name, 0)
        self.copy(node, x, target, name)
        return target

    def copy(self, node: QuantizedNode, x: Place, target: Place, name: str) -> None:
        """Add a phase that copies a place to another."""
        plain = QuantizedNode(node.name, "copy", (), (1, len(x.lanes), x.height, x.width))
        self.add(plain, MAXIMUM, region(x), target, window_taps(x.groups, (1, 1)), (x.height, x.width), name=name)

    def free(self, name: str) -> str:
        """A name that nothing has."""
        taken = {phase.name for phase in self.phases} | self.extents.keys() | self.graph.nodes.keys()
        while name in taken:
            name += "_"
        return name

    def second(self, node: QuantizedNode, target: Place) -> Region:
        """The region of a second operand, which must lie as the result does."""
        y = self.places[node.inputs[1]]
        if (y.height, y.width, len(y.lanes)) != (target.height, target.width, len(target.lanes)):
            raise CompileError(f"expected a second operand of the result's shape {list(node.shape)}, got {list(y.shape)}")
        if based(y.lanes) != based(target.lanes):
            y = self.gathered(node, y, based(target.lanes))
        return region(y)

    def gathered(self, node: QuantizedNode, x: Place, lanes: Lanes) -> Place:
        """A copy of a place with its channels in other lanes: a product with ones."""
        name = self.free(f"{node.name}.gather")
        ones = np.eye(len(lanes), dtype=np.int8)[:, :, None, None]
        taps = product_taps(ones, 1, (1, 1), based(x.lanes), lanes)
        self.extents[name] = Extent(len(taps.ends) - 1, x.height, x.width)
        target = Place(name, lanes, x.height, x.width, x.shape)
        plain = QuantizedNode(node.name, "gather", (), (1, len(lanes), x.height, x.width))
        self.add(plain, PRODUCT, region(x), target, taps, (x.height, x.width), name=name, own=False)
        return target

    def view(self, node: QuantizedNode, view: Place, least: int) -> None:
        """A value that is part of another's tensor; a clamp is a phase of its own."""
        if (node.low, node.high) == (LEAST, MOST) and node.name not in self.homes:
            self.done(node, view, least)
            return
        target = self.target(node.name, based(view.lanes), view.height, view.width, node.shape)
        size, taps = (view.height, view.width), window_taps(view.groups, (1, 1))
        self.add(replace(node, rescale=None), SUM, region(view), target, taps, size)
        self.done(node, target, max(least, node.low))
