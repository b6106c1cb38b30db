"""Tables of the band kernel: where the columns of a convolution lie in its source, and tiles × bands as work items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zellige.cpu.isa import Isa
from zellige.cpu.kernels.band import COLUMNS_AHEAD, Tile
from zellige.cpu.layout import Planes
from zellige.cpu.tables.tiles import cut_pixels, first_entries, tile_items, tile_widths, widest_tile
from zellige.cpu.tables.vectors import STORE, TARGET, flat_vectors, is_run, row_vectors, run_entries
from zellige.cpu.tables.windows import Stage
from zellige.cpu.tables.work import Work, lane_bits
from zellige.passes.sparsity import Bands

ITEM_CYCLES = 40       # begin and end of one tile and band: bias, call, masks
STORE_CYCLES = 2       # one vector through a plain epilogue
SINGLE_CYCLES = 25     # one single pixel of all rows


@dataclass(frozen=True)
class Taps:
    """How taps become offsets. Tap (ky, kx) of an output pixel is the source pixel (ky · dilation − top, kx · dilation − left) from
    there; in staged planes it is in one of the planes of its channel. ``masked`` taps may lie outside of a map without margins."""

    kernel: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)
    origin: tuple[int, int] = (0, 0)
    stage: Stage | None = None
    masked: bool = False

    @property
    def count(self) -> int:
        return self.kernel[0] * self.kernel[1]

    def positions(self, tap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The row and column of taps, from an output pixel's own place on."""
        tap = np.asarray(tap, np.int64)
        return (tap // self.kernel[1] * self.dilation[0] - self.origin[0], tap % self.kernel[1] * self.dilation[1] - self.origin[1])

    def offsets(self, bands: Bands, source: Planes) -> np.ndarray:
        """The offset of every column of the bands, relative to an output pixel's own place. int32."""
        y, x = self.positions(bands.tap)
        plane = bands.channel.astype(np.int64)
        if self.stage:
            staged, y, x = self.stage.place(y, x)
            plane = plane * self.stage.planes + staged
        return (plane * source.plane + y * source.row + x).astype(np.int32)

    def masks(self, entries: np.ndarray, tiles: list[Tile], source: Planes, target: Planes, lanes: int) -> np.ndarray:
        """The lanes of every entry whose pixel at a tap is one of the source's: [tile][tap][entry], one after another, uint16."""
        place = entries[:, TARGET, None] + np.arange(lanes)
        image = np.minimum(place // target.image, target.images - 1)
        row, column = np.divmod(place - image * target.image, target.row)
        y, x = self.positions(np.arange(self.count))
        y, x = row[:, None] + y[:, None], column[:, None] + x[:, None]
        inside = (y >= 0) & (y < source.height) & (x >= 0) & (x < source.width) & (column < target.width)[:, None]
        bits = lane_bits(inside) & entries[:, STORE, None]
        ends = first_entries(tiles)[1:]
        return np.concatenate([tile.T.ravel() for tile in np.split(bits, ends)]).astype(np.uint16)


def band_rows(outputs: int, groups: int, isa: Isa) -> int:
    """Rows of a band: the registers' worth, or what a group has."""
    each = outputs // groups
    return max(rows for rows in (1, 2, 4, isa.band[0]) if rows <= max(1, each))


def cut_map(source: Planes, target: Planes, rows: int, isa: Isa) -> tuple[list[Tile], np.ndarray]:
    """The tiles of a map, and their entries: over the planes as one run of pixels if they are one; else vectors that run flat over
    each image, or row by row where that takes fewer."""
    if is_run(source, target):
        tiles = cut_pixels(target.pixels, rows, isa)
        return tiles, run_entries(tiles, target.pixels, isa.lanes)
    entries = row_vectors(source, target, isa.lanes)
    if source.row == target.row and len(flat := flat_vectors(source, target, isa.lanes)) <= len(entries):
        entries = flat
    return [Tile(width) for width in tile_widths(len(entries), widest_tile(rows, isa))], entries


def band_work(bands: Bands, bias: np.ndarray, taps: Taps, source: Planes, target: Planes, rows: int,
              isa: Isa) -> tuple[tuple[Tile, ...], Work]:
    """The shapes of tiles, which choose the kernel's variant, and its tables."""
    tiles, entries = cut_map(source, target, rows, isa)
    items = tile_items(tiles, len(bands))
    tables: dict[str, np.ndarray | int] = {
        "vectors": entries, "items": items,
        "columns": np.pad(taps.offsets(bands, source), (0, COLUMNS_AHEAD)), "weights": padded_values(bands, rows),
        "bands": np.stack([bands.start[:-1], bands.start[1:], bands.first_row, bands.rows], 1).astype(np.int32),
        "bias": np.concatenate([bias, np.zeros(rows, np.float32)]), "target_plane": target.plane}
    if taps.masked:
        masks = taps.masks(entries, tiles, source, target, isa.lanes)
        tables |= {"taps": bands.tap.astype(np.uint16), "masks": masks, "tap_count": taps.count}
    costs = band_costs(np.diff(bands.start)[items[:, 3]], items[:, 1], items[:, 2], rows)
    return tuple(sorted(set(tiles), reverse=True)), Work(tables, costs)


def band_costs(columns: np.ndarray, vectors: np.ndarray, singles: np.ndarray, rows: int) -> np.ndarray:
    """Cycles of items: two FMAs a cycle, or two loads."""
    step = np.maximum(rows * vectors + singles, rows + vectors + 2 * singles + 1) / 2
    return columns * step + ITEM_CYCLES + STORE_CYCLES * rows * vectors + SINGLE_CYCLES * singles


def padded_values(bands: Bands, rows: int) -> np.ndarray:
    """The weights as [column][rows], short bands filled up with rows of zeros."""
    if (bands.rows == rows).all():
        return bands.values
    result = np.zeros((int(bands.start[-1]), rows), np.float32)
    for band in range(len(bands)):
        result[bands.start[band]:bands.start[band + 1], :bands.rows[band]] = bands.weights(band)
    return result
