"""Tables of the band kernel: where the columns of a convolution lie in its source, and tiles × bands as work items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zellige.cpu.isa import Isa
from zellige.cpu.layout import Planes
from zellige.cpu.tables.tiles import tile_items, tile_widths
from zellige.cpu.tables.vectors import flat_vectors, row_vectors
from zellige.cpu.tables.work import Work
from zellige.passes.sparsity import Bands

ITEM_CYCLES = 40       # begin and end of one tile and band: bias, call, masks
STORE_CYCLES = 2       # one vector through a plain epilogue
MAXIMUM_VECTORS = 8    # of a tile; more would only help kernels of one row


@dataclass(frozen=True)
class Taps:
    """How taps become offsets. Tap (ky, kx) of an output pixel is the source pixel (ky · dilation − top, kx · dilation − left) from
    there; in staged planes it is a pixel of one of the ``phases`` planes of its channel, stride by stride."""

    kernel: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)
    origin: tuple[int, int] = (0, 0)
    stride: tuple[int, int] = (1, 1)
    phases: int = 1

    def offsets(self, bands: Bands, source: Planes) -> np.ndarray:
        """The offset of every column of the bands, relative to an output pixel's own place. int32."""
        y = bands.tap.astype(np.int64) // self.kernel[1] * self.dilation[0] - self.origin[0]
        x = bands.tap.astype(np.int64) % self.kernel[1] * self.dilation[1] - self.origin[1]
        plane, (sy, sx) = bands.channel.astype(np.int64), self.stride
        if self.phases > 1:
            plane = plane * self.phases + y % sy * sx + x % sx
        return (plane * source.plane + y // sy * source.row + x // sx).astype(np.int32)


def band_rows(outputs: int, groups: int, isa: Isa) -> int:
    """Rows of a band: the registers' worth, or what a group has."""
    each = outputs // groups
    return max(rows for rows in (1, 2, 4, isa.band[0]) if rows <= max(1, each))


def widest_tile(rows: int, isa: Isa) -> int:
    """Vectors of a tile: bands of fewer rows leave registers for more."""
    most, vectors = isa.band
    return vectors if rows == most else min(MAXIMUM_VECTORS, most * vectors // rows)


def band_work(bands: Bands, bias: np.ndarray, taps: Taps, source: Planes, target: Planes, rows: int,
              isa: Isa) -> tuple[tuple[int, ...], Work]:
    """The tile widths, which choose the kernel's variant, and its tables.

    Vectors run flat over the planes, or row by row where that takes fewer.
    """
    table = row_vectors(source, target, isa.lanes)
    if source.row == target.row and len(flat := flat_vectors(source, target, isa.lanes)) <= len(table):
        table = flat
    widths = tile_widths(len(table), widest_tile(rows, isa))
    items = tile_items(widths, len(bands))
    return tuple(sorted(set(widths), reverse=True)), Work({
        "vectors": table, "items": items, "columns": taps.offsets(bands, source), "weights": padded_values(bands, rows),
        "bands": np.stack([bands.start[:-1], bands.start[1:], bands.first_row, bands.rows], 1).astype(np.int32),
        "bias": np.concatenate([bias, np.zeros(rows, np.float32)]), "target_plane": target.plane,
    }, band_costs(np.diff(bands.start)[items[:, 2]], items[:, 1], rows))


def band_costs(columns: np.ndarray, vectors: np.ndarray, rows: int) -> np.ndarray:
    """Cycles of items: two FMAs a cycle, or two loads."""
    step = np.maximum(rows * vectors, rows + vectors + 1) / 2
    return columns * step + ITEM_CYCLES + STORE_CYCLES * rows * vectors


def padded_values(bands: Bands, rows: int) -> np.ndarray:
    """The weights as [column][rows], short bands filled up with rows of zeros."""
    if (bands.rows == rows).all():
        return bands.values
    result = np.zeros((int(bands.start[-1]), rows), np.float32)
    for band in range(len(bands)):
        result[bands.start[band]:bands.start[band + 1], :bands.rows[band]] = bands.weights(band)
    return result
