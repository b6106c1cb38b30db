"""Pooling in the output transform: the largest of every 2 × 2 pixels, before anything is stored.

A tile of 4 × 4 pixels becomes 2 × 2. Lanes are still tiles then, so that the maximum joins whole vectors, and only a quarter
of the numbers is put into the order of the map's rows.
"""

from __future__ import annotations

import llvmlite.ir as ir

from zellige.cpu.emitter import Emitter
from zellige.cpu.kernels.epilogue import Epilogue, emit_epilogue
from zellige.cpu.kernels.winograd_runs import TILE, WIDE, run_lanes, store_run

POOL = 2    # pixels along a side of a window, and from window to window


def emit_pooled_row(b: Emitter, epilogue: Epilogue, rows: list[list[ir.Value]], places: list[ir.Value],
                    masks: list[ir.Value | None]) -> None:
    """Two rows of pixels of all tiles, each four vectors with a lane a tile, through the epilogue to one pooled row.

    The epilogue has no operands; ``places`` are where each run lies in the target.
    """
    finished = [[emit_epilogue(b, epilogue, pixel, [].__getitem__) for pixel in row] for row in rows]
    left, right = (largest(b, [row[column] for row in finished for column in (first, first + 1)]) for first in (0, POOL))
    runs, width = len(masks), run_lanes(b, len(masks)) // POOL
    order = [lane for run in range(runs) for lane in pooled_lanes(b, run, runs)]
    halves = [b.shuffle(left, right, order[first:first + b.isa.lanes]) for first in (0, b.isa.lanes)]
    for run, (place, mask) in enumerate(zip(places, masks, strict=True)):
        half, first = divmod(run * width, b.isa.lanes)
        store_run(b, b.shuffle(halves[half], halves[half], range(first, first + width)), place, mask)


def pooled_lanes(b: Emitter, run: int, runs: int) -> list[int]:
    """Where the pooled pixels of a run lie in the vectors of left and right ones: the opposite of ``transpose_quarters``.

    Quarter q of the vector of pixels v holds tile q of all that lie in v; transposed, it is lane v of quarter q.
    """
    lanes = b.isa.lanes
    vector, tiles = run * WIDE // runs, lanes // TILE * WIDE // runs
    first = run % (runs // WIDE) * tiles
    return [TILE * tile + vector + side for tile in range(first, first + tiles) for side in (0, lanes)]


def largest(b: Emitter, values: list[ir.Value]) -> ir.Value:
    """The largest of four vectors, NaN where one of them is."""
    pairs = [values[:2], values[2:]]
    nan = b.or_(*(b.fcmp_unordered("uno", *pair) for pair in pairs))
    return b.select(nan, b.splat(float("nan")), b.maximum(*(b.maximum(*pair) for pair in pairs)))
