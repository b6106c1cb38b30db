"""Pooling in the output transform: the largest of every 2 × 2 pixels, before anything is stored.

A tile of 4 × 4 pixels becomes 2 × 2, one of 2 × 2 a single pixel. Lanes are still tiles then, so that the maximum joins whole
vectors, and only a quarter of the numbers is put into the order of the map's rows.
"""

from __future__ import annotations

import llvmlite.ir as ir

from zellige.cpu.emitter import Emitter
from zellige.cpu.kernels.epilogue import Epilogue, emit_epilogue
from zellige.cpu.kernels.winograd_runs import Tiling, store_run

POOL = 2    # pixels along a side of a window, and from window to window


def emit_pooled_row(b: Emitter, tiling: Tiling, epilogue: Epilogue, rows: list[list[ir.Value]], places: list[ir.Value],
                    masks: list[ir.Value | None]) -> None:
    """Two rows of pixels of all tiles, each a vector a column with a lane a tile, through the epilogue to one pooled row.

    The epilogue has no operands; ``places`` are where each run lies in the target.
    """
    finished = [[emit_epilogue(b, epilogue, pixel, [].__getitem__) for pixel in row] for row in rows]
    pooled = [largest(b, [row[column] for row in finished for column in (first, first + 1)])
              for first in range(0, tiling.tile, POOL)]
    lanes, width = b.isa.lanes, tiling.width(b.isa.lanes) // POOL
    order = [lane for run in range(tiling.runs) for lane in pooled_lanes(tiling, run, lanes)]
    vectors = [b.shuffle(pooled[0], pooled[-1], order[first:first + lanes]) for first in range(0, len(order), lanes)]
    for run, (place, mask) in enumerate(zip(places, masks, strict=True)):
        vector, first = divmod(run * width, lanes)
        store_run(b, b.shuffle(vectors[vector], vectors[vector], range(first, first + width)), place, mask)


def pooled_lanes(tiling: Tiling, run: int, lanes: int) -> list[int]:
    """Where the pooled pixels of a run lie in the vectors of a tile's pooled columns: the opposite of ``transpose_tiles``.

    Tile q of all that lie in the vector of pixels v is lane v of the q-th m lanes.
    """
    vector, place = divmod(run, tiling.beside)
    tiles = lanes // tiling.runs
    return [tiling.tile * tile + vector + lanes * column for tile in range(place * tiles, (place + 1) * tiles)
            for column in range(tiling.tile // POOL)]


def largest(b: Emitter, values: list[ir.Value]) -> ir.Value:
    """The largest of four vectors, NaN where one of them is."""
    pairs = [values[:2], values[2:]]
    nan = b.or_(*(b.fcmp_unordered("uno", *pair) for pair in pairs))
    return b.select(nan, b.splat(float("nan")), b.maximum(*(b.maximum(*pair) for pair in pairs)))
