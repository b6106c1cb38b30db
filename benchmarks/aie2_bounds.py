"""How fast phases could be at best on an overlay: what pruning can't make faster there, however well phases are cut.

    python benchmarks/aie2_bounds.py

For every phase of the three networks, on the device ``paper``, the slowest of four things: products at 256 a cycle on all cores;
packets at 4 bytes a cycle through every row's memory tile; what cores read and write at 4 bytes a cycle for each stream of a
column; and, unless it stays in memory tiles, for each shim. Nothing is read twice, nothing is uneven, nothing waits. Results go to
``benchmarks/results/aie2-bounds.json``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from math import inf
from typing import Any

from aie2 import NETWORKS, SIDES, SPARSITY, network
from result_file import RESULTS, conditions, write_result

from zellige.aie2.device import WORD, device_named
from zellige.aie2.lowering.place import place
from zellige.aie2.lowering.stems import fold_stems
from zellige.aie2.overlay import ROWS_PER_MEMORY
from zellige.aie2.packet import GROUP, PRODUCT
from zellige.aie2.phase import Phase


@dataclass(frozen=True)
class Design:
    """Whether all values stay in memory tiles, and how many streams of activations the cores of a column may have. Where they
    ``share``, cores read what comes to their neighbours too (in each other's memory) and rows have channels of their own; else
    rows with streams of their own have pixels of their own, and each gets the packets of all."""

    resident: bool
    streams: float
    share: bool = False


DESIGNS: dict[str, Design] = {
    "one stream, host memory": Design(False, 1), "one stream, all resident": Design(True, 1),
    "two streams, all resident": Design(True, 2), "four streams, all resident": Design(True, 4),
    "two streams shared by pairs, all resident": Design(True, 2, share=True),
    "streams for nothing, all resident": Design(True, inf, share=True),
}  # fmt: skip


def bound(phase: Phase, side: int, design: Design) -> float:
    """Cycles that a phase takes at least on ``side`` × ``side`` cores."""
    device, taps, pixels = device_named("paper"), len(phase.taps.rows), phase.height * phase.width
    rows, columns = phase.reads(phase.height, phase.width)
    results = pixels * phase.groups * GROUP
    read = rows * columns * phase.source.groups * GROUP + (results if phase.residual is not None else 0)
    packets = taps * (2 + (GROUP * GROUP if phase.operation == PRODUCT else 0))
    products = pixels * taps * GROUP * GROUP / device.macs / side**2
    shims = 0.0 if design.resident else max(read, results / -(-side // ROWS_PER_MEMORY)) / (WORD * side)
    rest = max(products, results / (WORD * side * min(side, ROWS_PER_MEMORY)), shims)
    if design.share:
        return max(rest, packets / (WORD * side), read / (WORD * side * design.streams))
    return min(max(rest, packets * among / (WORD * side), read / (WORD * side * among))
               for among in range(1, min(int(design.streams), side) + 1) if side % among == 0)


def main() -> int:
    cells: dict[str, Any] = {}
    for name in NETWORKS:
        for sparsity in (0.0, SPARSITY):
            phases = place(fold_stems(network(name, sparsity))[0]).phases
            for side in SIDES:
                for called, design in DESIGNS.items():
                    cycles = sum(bound(phase, side, design) for phase in phases)
                    cells[f"{name} {side}x{side} {sparsity:g} {called}"] = cycles / device_named("paper").clock * 1e3
    write_result(RESULTS / "aie2-bounds.json", {**conditions(1, 1), "cells": cells})
    return 0


if __name__ == "__main__":
    sys.exit(main())
