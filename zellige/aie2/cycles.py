"""What a step takes on a core, in cycles: an estimate, from what the kernel's C++ (``kernels/``) makes the core do.

A core issues two loads, a store, a shuffle and 256 products of int8 in a cycle (AMD AM020, UG1603). Products of four tiles of 4 × 8
with one block take four cycles, or as many as their loads or shuffles do, whichever is most. Around them stand costs that do not
overlap with products. Two of those are fitted on what AMD publishes for one core's product of two 64 × 64 matrices of int8 (XD100,
"Performance Analysis"); the rest are counts of what is written in the C++, marked as such. On a device that is ``ideal``, products
are all that takes time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zellige.aie2.device import Device
from zellige.aie2.packet import GROUP, MAXIMUM, PRODUCT, TABLE, Header, Packet

PIXELS, TILES = 4, 4
"""Pixels of a tile, and tiles that share a block of weights (``kernels/tiles.h``)."""

PRODUCTS = 256
"""Of int8 in a cycle of a core that the loads of a tile are counted for."""

MATRIX = 64 * 64 * 64 / PRODUCTS
"""Cycles of AMD's example, if products were all."""

QUADS = (64 // (PIXELS * TILES)) * (64 // GROUP)
"""How often it writes four tiles of sums."""

NARROW = (1121 - MATRIX) / QUADS
"""Fitted: cycles for four tiles that leave rescaled. The example takes 1121 with results of 16 bits."""

WIDE = (1750 - MATRIX) / QUADS
"""Fitted: cycles for four tiles that are stored as sums. The example takes 1750 with results of 32 bits."""

HEADER = 24.0
"""Counted: 16 words are loaded, one a cycle, and the pipeline fills. The call itself and its locks are not the kernel's."""

TILE = 4.0
"""Counted: where a tile lies, once for all groups."""

PER_GROUP = 8.0
"""Counted, for every group of some tiles: taps, bias and shift are loaded, the loop begins."""

RESIDUAL, WAITING = 2.0, 2.0
"""Counted, for a tile: a residual is loaded and added; sums of the part before are loaded."""

WIDE_TERM, WIDE_SHIFT = 8.0, 2.0
"""Counted, for a tile that is rescaled in 64 bits: a product of 32 by 32 bits for each term; each different shift."""

LOOK_UP = 2.0
"""Counted: two scalar loads for every value that is looked up."""


@dataclass(frozen=True)
class StepCost:
    """Cycles of a step, and what each resource alone would take: products, loads, shuffles, and what overlaps with none of them."""

    cycles: float
    products: float
    loads: float
    shuffles: float
    overhead: float

    @property
    def bound(self) -> str:
        """What binds the step: the resource that takes most."""
        return max(("products", "loads", "shuffles", "overhead"), key=lambda name: getattr(self, name))


def step_cycles(packet: Packet, device: Device, dense: bool = False) -> float:
    """Core cycles of one step. ``dense``: by a kernel that knows where its taps lie, and loads no offsets."""
    return step_cost(packet, device, dense).cycles


def step_cost(packet: Packet, device: Device, dense: bool = False) -> StepCost:
    """Cycles of one step, and where they go."""
    header, taps = packet.header, int(packet.counts.sum(dtype=np.int64))
    if device.ideal:
        ideal = header.rows * header.width * GROUP * GROUP * taps / device.macs
        return StepCost(ideal, ideal, 0.0, 0.0, 0.0)
    if header.operation == TABLE:
        values = header.rows * header.width * header.groups * GROUP * LOOK_UP
        return StepCost(HEADER + values, 0.0, values, 0.0, HEADER)
    tiles, loads, shuffles = _tap(header, dense)
    products = tiles * PRODUCTS / device.macs
    loop = np.maximum(products, np.maximum(loads, shuffles))
    overhead = HEADER + float(tiles.sum()) * TILE + header.groups * len(tiles) * PER_GROUP + _results(packet, tiles)
    return StepCost(float(taps * loop.sum()) + overhead, float(taps * products.sum()), float(taps * loads.sum()),
                    float(taps * shuffles.sum()), overhead)


def tiles_of(header: Header) -> tuple[np.ndarray, np.ndarray]:
    """How many tiles are computed at a time, and whether they are neighbours in a row, each time that taps are gone through.

    One tile that is left over is computed alone, two or three as if they were four.
    """
    across = -(-header.width // PIXELS)
    total = header.rows * across
    first = np.arange(0, total, TILES)
    left = np.minimum(total - first, TILES)
    return np.where(left == 1, 1, TILES), (left == TILES) & (first // across == (first + TILES - 1) // across)


def _tap(header: Header, dense: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For one tap: tiles, cycles of loads (two at a time), and shuffles, each time that it is gone through."""
    tiles, neighbours = tiles_of(header)
    pairs = (tiles > 1) & (-(-header.width // PIXELS) == 2)
    values = np.where(neighbours, tiles + 1, np.where(pairs, tiles // 2 * 3, 2 * tiles))
    block = 2 if header.operation == PRODUCT else 0
    return tiles, (values + block + (not dense)) / 2, tiles


def _results(packet: Packet, tiles: np.ndarray) -> float:
    """What comes before and after the taps of all groups: sums that wait, rescaling, results."""
    header = packet.header
    rounds, total = header.groups * len(tiles), float(tiles.sum())
    if header.operation == MAXIMUM:
        return rounds * NARROW
    cycles = 0.0 if header.first else header.groups * total * WAITING
    if not header.last:
        return cycles + rounds * WIDE
    terms = header.terms
    if not packet.plain:
        shifts = 1 + np.count_nonzero(np.diff(packet.shift, axis=1), axis=1)
        cycles += total * float((WIDE_TERM * terms + WIDE_SHIFT * shifts).sum())
    return cycles + rounds * NARROW + (header.groups * total * RESIDUAL if terms == 2 else 0.0)
