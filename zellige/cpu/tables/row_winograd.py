"""Tables of the row kernel: strips of whole rows, the columns of every band and their weights at 7 points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zellige.cpu.isa import Isa
from zellige.cpu.kernels.row_transforms import POINTS, TAPS, TILE, filter_transform
from zellige.cpu.kernels.row_winograd import scratch_elements
from zellige.cpu.layout import LINE, Planes, planes, round_up
from zellige.cpu.tables.tiles import tile_widths
from zellige.cpu.tables.windows import Stage
from zellige.cpu.tables.work import Work, table

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


def staged_rows(channels: int, filters: RowFilters, target: Planes) -> Planes:
    """The planes of the stage, with room for the windows of the last tile."""
    return planes(target.images, channels * filters.stage.planes, target.height + filters.down, target.width + POINTS - TILE)


def strip_rows(filters: RowFilters, target: Planes, isa: Isa) -> int:
    """Output rows of a strip, whose tiles fill whole vectors, more than one; 0 if there are none such."""
    tiles, most = target.width // TILE, target.height * target.images
    if target.width % TILE or target.row != target.width or tiles < isa.lanes:
        return 0
    fitting = [rows for rows in range(1, target.height + 1)
               if target.height % rows == 0 and rows * tiles % isa.lanes == 0 and rows * tiles > isa.lanes
               and 4 * POINTS * filters.taps.shape[1] * (rows + filters.down) * tiles <= MOST_SCRATCH]
    shared = [rows for rows in fitting if most // rows >= FEWEST_ITEMS]
    return max(shared, default=min(fitting, default=0))


def row_work(filters: RowFilters, bias: np.ndarray, source: Planes, target: Planes, rows: int, strip: int,
             isa: Isa) -> tuple[tuple[int, ...], Work, float]:
    """The widths of chunks, which choose the kernel's variant; its tables but for scratch; and the share of columns kept.

    ``strip`` are the output rows of one. A band keeps a column if any of its taps is not zero.
    """
    outputs, channels, heights, _ = filters.taps.shape
    tiles = target.width // TILE
    bands = -(-outputs // rows)
    padded = np.zeros((bands * rows, channels, heights, TAPS))
    padded[:outputs] = filters.taps
    weights = (padded @ filter_transform().T).reshape(bands, rows, channels * heights, POINTS)
    kept: np.ndarray = np.abs(padded).reshape(bands, rows, channels * heights, TAPS).max((1, 3)) > 0
    window_rows = strip + filters.down
    plane_pitch = round_up(window_rows * tiles, LINE) + LINE
    offsets = (np.arange(channels)[:, None] * plane_pitch + np.arange(heights) * tiles).ravel()
    starts = np.concatenate([[0], kept.sum(1).cumsum()]).astype(np.int32)
    values = [weights[band][:, kept[band]].transpose(2, 1, 0).ravel() for band in range(bands)]
    widths = tile_widths(strip * tiles // isa.lanes, isa.band[1])
    chunks = table(np.cumsum([0, *widths[:-1]]), np.array(widths))
    image, row = (index.ravel() for index in np.indices((target.images, target.height // strip)))
    items = table(image * source.image + row * strip * source.row, image * target.image + row * strip * target.row)
    vector_tiles = np.minimum(np.arange(0, tiles, isa.lanes), tiles - isa.lanes).astype(np.int32)
    scratch = round_up(scratch_elements(channels * plane_pitch, rows, max(widths), isa.lanes), LINE)
    counts = kept.sum(1)
    step = np.array([max(rows * width, rows + width + 1) / 2 for width in widths])
    cycles = (WINDOW_CYCLES * channels * window_rows * len(vector_tiles) + OUTPUT_CYCLES * outputs * sum(widths)
              + POINTS * (counts.sum() * step.sum() + LIST_CYCLES * bands * len(widths)))
    density = float(counts.sum() / (bands * filters.columns))
    return tuple(sorted(set(widths), reverse=True)), Work({
        "items": items, "chunks": chunks, "chunk_count": len(chunks),
        "vector_tiles": vector_tiles, "vector_count": len(vector_tiles),
        "starts": starts, "columns": np.tile(offsets, (bands, 1))[kept].astype(np.int32),
        "weights": np.concatenate(values).astype(np.float32), "bias": np.ascontiguousarray(bias, np.float32), "bands": bands,
        "channels": outputs, "source_planes": channels, "source_plane": source.plane, "source_row": source.row,
        "window_rows": window_rows, "tiles": tiles, "plane_pitch": plane_pitch, "point_pitch": channels * plane_pitch,
        "scratch_bytes": 4 * scratch, "target_plane": target.plane}, np.full(len(items), cycles)), density
