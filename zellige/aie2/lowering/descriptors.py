"""Which descriptors of a tile belong to which of its channels."""

from __future__ import annotations

from collections.abc import Mapping

from zellige.aie2.device import KINDS
from zellige.aie2.overlay import ROWS_PER_MEMORY, Overlay
from zellige.aie2.program import Tile

SHIM = 4
"""Descriptors of each channel of a shim."""

CORE = {("in", 0): range(0, 8), ("in", 1): range(8, 12), ("out", 0): range(12, 16)}


def shares(on: Overlay, tile: Tile) -> Mapping[tuple[str, int], range]:
    """The descriptor numbers of a tile's channels."""
    kind = on.device.kind(tile.row)
    if kind == "shim":
        return {(direction, number): range(4 * at, 4 * at + SHIM) for at, (direction, number) in
                enumerate((("out", 0), ("out", 1), ("in", 0), ("in", 1)))}
    if kind == "core":
        return CORE
    half, first = KINDS["memory"].descriptors // 2, tile.row == 1
    results = 2 * min(on.rows, ROWS_PER_MEMORY)
    even = {("in", 0): 4, ("in", 2): 2, ("in", 4): 2, ("out", 2): results, ("out", 0): half - 8 - results}
    odd = {("in", 1): 4, ("in", 3): 2, ("in", 5): 2, ("out", 1): half - 8}
    if on.paired:
        even = {("in", 0): 2, ("in", 2): 4, ("in", 4): 0, ("out", 2): results, ("out", 0): half - 6 - results}
        odd = {**odd, ("in", 3): 4, ("in", 5): 0}
    if not first:
        even, odd = {("in", 0): 4, ("in", 2): 4, ("out", 0): 16}, {("in", 1): 4, ("in", 3): 4}
    return {**_laid(even, 0), **_laid(odd, half)}


def _laid(counts: Mapping[tuple[str, int], int], first: int) -> dict[tuple[str, int], range]:
    found = {}
    for channel, count in counts.items():
        found[channel] = range(first, first + count)
        first += count
    return found
