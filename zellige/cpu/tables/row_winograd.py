"""Tables of the row kernel: strips of whole rows, the columns of every band and their weights at 7 points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zellige.cpu.isa import Isa
from zellige.cpu.kernels.row_transforms import POINTS, TAPS, TILE, filter_transform
from zellige.cpu.kernels.row_winograd import scratch_elements
from zellige.cpu.layout import LINE, Planes, planes, round_up
from zellige.cpu.tables.parts import cut_evenly
from zellige.cpu.tables.tiles import tile_widths
from zellige.cpu.tables.windows import Stage
from zellige.cpu.tables.work import Work, lane_bits, table

MOST_SCRATCH = 512 << 10    # bytes of the points of a window: they should stay in the second-level cache
FEWEST_ITEMS = 12           # from here on they are shared out evenly enough, over a few threads
WINDOW_CYCLES = 36          # of a vector of windows
OUTPUT_CYCLES = 44          # of a vector of tiles and an output row
LIST_CYCLES = 25            # begin and end of one band at one point


@dataclass(frozen=True, eq=False)
class RowFilters:
    """A convolution's weights as filters of 4 taps over the planes of a stage: Cout × planes × rows down × 4 taps.

    A *column* is a plane and some rows down; ``columns`` counts those that have taps.
    """

    stage: Stage
    taps: np.ndarray
    columns: int

    @classmethod
    def of(cls, weight: np.ndarray, stride: tuple[int, int]) -> RowFilters:
        """The filters of Cout × Cin × height × width weights."""
        outputs, inputs, height, width = weight.shape
        stage = Stage.of((height, width), (1, 1), stride, flat=False)
        ky, kx = (index.ravel() for index in np.indices((height, width)))
        plane, down, right = stage.place(ky, kx)
        taps = np.zeros((outputs, inputs, stage.planes, int(down.max()) + 1, TAPS), np.float64)
        taps[:, :, plane, down, right] = weight[:, :, ky, kx]
        columns = inputs * len(set(zip(plane.tolist(), down.tolist(), strict=True)))
        return cls(stage, taps.reshape(outputs, inputs * stage.planes, -1, TAPS), columns)

    @property
    def down(self) -> int:
        """Rows of a source plane that an output row needs beyond its own."""
        return self.taps.shape[2] - 1

    def in_bands(self, rows: int) -> np.ndarray:
        """The taps of every band of ``rows`` outputs: bands × rows × columns × 4, the last band filled up with zeros."""
        bands = -(-len(self.taps) // rows)
        padded = np.zeros((bands * rows, *self.taps.shape[1:]))
        padded[:len(self.taps)] = self.taps
        return padded.reshape(bands, rows, -1, TAPS)

    def kept(self, rows: int) -> np.ndarray:
        """Which columns each band of ``rows`` outputs keeps: those of which any tap is not zero. Bands × columns."""
        return np.asarray(np.abs(self.in_bands(rows)).max((1, 3)) > 0)


@dataclass(frozen=True)
class RowTiles:
    """The tiles of a target's rows, with the margins behind them, in vectors that may run across the ends of rows."""

    target: Planes
    lanes: int

    @property
    def across(self) -> int:
        """Tiles of a row."""
        return -(-self.target.row // TILE)

    def vectors(self, rows: int) -> int:
        """Vectors of so many rows."""
        return -(-rows * self.across // self.lanes)

    def outputs(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the pixels of each vector of a strip of ``rows`` go, with the columns of ``OUTPUT_FIELDS``; and the pieces of
        those that do not follow one another, with the columns of ``PIECE_FIELDS``."""
        pixel = np.arange(TILE * self.vectors(rows) * self.lanes)
        tile, within = np.divmod(pixel, TILE)
        y, across = np.divmod(tile, self.across)
        x = TILE * across + within
        parts = (-1, self.lanes)
        place, store = (y * self.target.row + x).reshape(parts), ((y < rows) & (x < self.target.row)).reshape(parts)
        inside, first = store & (x < self.target.width).reshape(parts), place - np.arange(self.lanes)
        vectors = place.reshape(-1, TILE * self.lanes)
        whole = (inside.reshape(vectors.shape) & (vectors == vectors[:, :1] + np.arange(TILE * self.lanes))).all(1)
        pieces: list[tuple[int, np.ndarray, np.ndarray]] = []
        ends = [0]
        for part in range(len(place)):
            if not whole[part // TILE]:
                for begin in sorted(set(first[part][store[part]].tolist())):
                    lanes = store[part] & (first[part] == begin)
                    pieces.append((begin, lanes & inside[part], lanes))
            ends.append(len(pieces))
        begins = np.array(ends)[TILE * np.arange(len(whole))[:, None] + np.arange(TILE + 1)]
        return np.column_stack([whole, vectors[:, 0], begins]), np.array(
            [(begin, lane_bits(inside), lane_bits(store)) for begin, inside, store in pieces], np.int64).reshape(-1, 3)


def staged_rows(channels: int, filters: RowFilters, target: Planes) -> Planes:
    """The planes of the stage, with room for the windows of all tiles."""
    width = TILE * RowTiles(target, 1).across + POINTS - TILE
    return planes(target.images, channels * filters.stage.planes, target.height + filters.down, width)


def point_pitches(filters: RowFilters, tiles: RowTiles, rows: int) -> tuple[int, int]:
    """Elements from plane to plane, and from point to point, of the points of a strip of ``rows``."""
    plane = round_up((rows + filters.down) * tiles.across, LINE) + LINE
    return plane, plane * filters.taps.shape[1]


def strip_cycles(filters: RowFilters, kept: np.ndarray, tiles: RowTiles, rows: int, isa: Isa) -> float:
    """What a strip of ``rows`` is expected to take."""
    outputs, channels = filters.taps.shape[:2]
    most, vectors = isa.band
    widths = np.array(tile_widths(tiles.vectors(rows), vectors))
    step = np.maximum(most * widths, most + widths + 1) / 2
    windows = channels * (rows + filters.down) * tiles.vectors(1)
    return float(WINDOW_CYCLES * windows + OUTPUT_CYCLES * outputs * widths.sum()
                 + POINTS * (kept.sum() * step.sum() + LIST_CYCLES * len(kept) * len(widths)))


def cut_strips(filters: RowFilters, target: Planes, isa: Isa) -> np.ndarray:
    """The strips of an image, of one height or of two that differ by a row, (first, end) each: of those that threads share
    evenly, the ones that take the least. None if the points of a single row are too many.
    """
    tiles = RowTiles(target, isa.lanes)
    most = [rows for rows in range(1, target.height + 1) if 4 * POINTS * point_pitches(filters, tiles, rows)[1] <= MOST_SCRATCH]
    kept = filters.kept(isa.band[0])
    ways = {len(strips): strips for strips in (cut_evenly(target.height, rows) for rows in most)}
    shared = [count for count in ways if count * target.images >= FEWEST_ITEMS] or [max(ways, default=0)]

    def cycles(count: int) -> float:
        """What the busier of two threads takes."""
        return -(-count * target.images // 2) / count * sum(
            number * strip_cycles(filters, kept, tiles, rows, isa) for rows, number in zip(*heights(ways[count]), strict=True))

    return ways[min(shared, key=cycles)] if ways else np.zeros((0, 2), np.int32)


def heights(strips: np.ndarray) -> tuple[list[int], list[int]]:
    """The different heights of strips, and how many have them."""
    rows, count = np.unique(strips[:, 1] - strips[:, 0], return_counts=True)
    return rows.tolist(), count.tolist()


def row_work(filters: RowFilters, bias: np.ndarray, source: Planes, target: Planes, strips: np.ndarray,
             isa: Isa) -> tuple[tuple[int, ...], Work, float]:
    """The widths of chunks, which choose the kernel's variant; its tables but for scratch; and the share of columns kept."""
    rows, most_vectors = isa.band
    outputs, channels, down, _ = filters.taps.shape
    tiles, kept = RowTiles(target, isa.lanes), filters.kept(rows)
    bands = len(kept)
    weights = filters.in_bands(rows) @ filter_transform().T
    values = [weights[band][:, kept[band]].transpose(2, 1, 0).ravel() for band in range(bands)]
    starts = np.concatenate([[0], kept.sum(1).cumsum()]).astype(np.int32)
    different, _ = heights(strips)
    plane_pitch, point_pitch = point_pitches(filters, tiles, max(different))
    offsets = (np.arange(channels)[:, None] * plane_pitch + np.arange(down) * tiles.across).ravel()
    widths = [tile_widths(tiles.vectors(height), most_vectors) for height in different]
    chunks, places, pieces = _strip_tables(tiles, different, widths)
    chunk_ends = np.cumsum([0, *map(len, widths)])
    image, strip = (index.ravel() for index in np.indices((target.images, len(strips))))
    first, end = strips[strip].T
    kind = np.searchsorted(different, end - first)
    items = table(image * source.image + first * source.row, image * target.image + first * target.row,
                  end - first + filters.down, chunk_ends[kind], chunk_ends[kind + 1])
    vector_tiles = np.maximum(np.minimum(np.arange(0, tiles.across, isa.lanes), tiles.across - isa.lanes), 0).astype(np.int32)
    variants = tuple(sorted({width for each in widths for width in each}, reverse=True))
    scratch = round_up(scratch_elements(point_pitch, rows, max(variants), isa.lanes), LINE)
    costs = np.array([strip_cycles(filters, kept, tiles, height, isa) for height in different])[kind]
    density = float(kept.sum() / (bands * filters.columns))
    return variants, Work({
        "items": items, "chunks": chunks, "outputs": places, "pieces": pieces,
        "vector_tiles": vector_tiles, "vector_count": len(vector_tiles),
        "starts": starts, "columns": np.tile(offsets, (bands, 1))[kept].astype(np.int32),
        "weights": np.concatenate(values).astype(np.float32), "bias": np.ascontiguousarray(bias, np.float32), "bands": bands,
        "channels": outputs, "source_planes": channels, "source_plane": source.plane, "source_row": source.row,
        "tiles": tiles.across, "plane_pitch": plane_pitch, "point_pitch": point_pitch,
        "scratch_bytes": 4 * scratch, "target_plane": target.plane}, costs), density


def _strip_tables(tiles: RowTiles, different: list[int], widths: list[list[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The chunks of strips of each height, where the pixels of their vectors go, and the pieces of those."""
    chunks, places, pieces = [], [], []
    vectors = count = 0
    for rows, each in zip(different, widths, strict=True):
        first = np.cumsum([0, *each[:-1]])
        chunks.append(np.column_stack([first, each, vectors + first]))
        place, piece = tiles.outputs(rows)
        place[:, 2:] += count
        places.append(place)
        pieces.append(piece)
        vectors, count = vectors + len(place), count + len(piece)
    pieces.append(np.zeros((1, 3), np.int64))  # no table is empty
    return tuple(np.concatenate(each).astype(np.int32) for each in (chunks, places, pieces))  # type: ignore[return-value]
