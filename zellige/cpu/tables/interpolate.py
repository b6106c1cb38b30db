"""Tables of the interpolation kernel: what each row and column of the target is made of, and when a row is resampled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zellige.cpu.kernels.interpolate import BUFFERS
from zellige.cpu.layout import LINE, Layout, Planes, round_up
from zellige.cpu.tables.cells import offsets
from zellige.cpu.tables.work import Work, lane_bits, table
from zellige.graph.resampling import NEAREST, bilinear_taps

LEAST_ITEMS = 16    # planes are split into parts to have so many
FILL_CYCLES = {"nearest": 0.9, "nearest_exact": 0.9, "bilinear": 1.4}  # of a lane
BLEND_CYCLES = 4    # of a vector


@dataclass(frozen=True, eq=False)
class Taps:
    """For each element of one dimension of the target: the two source elements it lies between, and the upper one's share."""

    lower: np.ndarray
    upper: np.ndarray
    share: np.ndarray


def interpolate_work(source: Layout, target: Layout, mode: str, scale: tuple[float, float] = (0.0, 0.0),
                     align_corners: bool = False, lanes: int = 16) -> tuple[int, Work]:
    """The elements of scratch memory that a thread needs, and the tables.

    Both layouts are N × C × H × W; ``mode``, ``scale`` and ``align_corners`` are the operator's attributes.
    """
    vertical, horizontal = (_taps(source.shape[d], target.shape[d], mode, scale[d - 2], align_corners) for d in (2, 3))
    vectors, columns = _columns(target, horizontal, lanes)
    buffer = round_up(len(vectors) * lanes, LINE)  # threads share no cache line
    parts = _parts(target)
    rows, fills = _rows(source, target, vertical, parts, buffer)
    planes = table(*(offsets(layout.shape[:2], layout.strides[:2]) for layout in (target, source)))
    items = np.concatenate([np.repeat(planes, len(parts), axis=0), np.tile(parts, (len(planes), 1))], 1)
    filled = np.array([(rows[first:last, 4] - rows[first:last, 3]).sum() for first, last in parts])
    cycles = (filled * FILL_CYCLES[mode] * lanes + (parts[:, 1] - parts[:, 0]) * BLEND_CYCLES) * len(vectors)
    return BUFFERS * buffer, Work({
        "items": np.ascontiguousarray(items, np.int32), "rows": rows, "row_shares": vertical.share, "fills": fills,
        "vectors": vectors, "vector_count": len(vectors), **columns, "scratch_bytes": 4 * BUFFERS * buffer,
    }, np.tile(cycles, len(planes)))


def _taps(size: int, result: int, mode: str, scale: float, align_corners: bool) -> Taps:
    if mode in NEAREST:
        index = NEAREST[mode](size, result, scale)
        return Taps(index, index, np.zeros(result, np.float32))
    lower, upper, share = bilinear_taps(size, result, scale, align_corners)
    return Taps(lower, upper, share.astype(np.float32))


def _columns(target: Layout, taps: Taps, lanes: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The vectors of a target row and of the margin behind it; lanes outside of the map pick the source row's first element."""
    width = target.shape[3]
    stored = target.row if isinstance(target, Planes) else width
    first = np.arange(0, stored, lanes)
    lane = first[:, None] + np.arange(lanes)
    vectors = table(first, lane_bits(lane < width), lane_bits(lane < stored))

    def padded(values: np.ndarray, kind: type) -> np.ndarray:
        return np.concatenate([values, np.zeros(lane.size - width)]).astype(kind)

    return vectors, {"lower": padded(taps.lower, np.int32), "upper": padded(taps.upper, np.int32),
                     "column_shares": padded(taps.share, np.float32)}


def _parts(target: Layout) -> np.ndarray:
    """Ranges of target rows (first, end), one for each item of a plane."""
    images, channels, height, _ = target.shape
    count = min(height, -(-LEAST_ITEMS // (images * channels)))
    cuts = np.arange(count + 1) * height // count
    return np.stack([cuts[:-1], cuts[1:]], 1)


def _rows(source: Layout, target: Layout, taps: Taps, parts: np.ndarray, buffer: int) -> tuple[np.ndarray, np.ndarray]:
    """The table of target rows and the fills they wait for: source row i goes into buffer i mod 2, so that neighbours
    never share one; each part begins with empty buffers."""
    rows: list[tuple[int, ...]] = []
    fills: list[tuple[int, int]] = []
    for first, last in parts.tolist():
        held = [-1] * BUFFERS
        for row in range(first, last):
            before = len(fills)
            needed = (int(taps.lower[row]), int(taps.upper[row]))
            for index in dict.fromkeys(needed):
                if held[index % BUFFERS] != index:
                    held[index % BUFFERS] = index
                    fills.append((index * source.strides[2], index % BUFFERS * buffer))
            rows.append((row * target.strides[2], *(index % BUFFERS * buffer for index in needed), before, len(fills)))
    return np.array(rows, np.int32), np.array(fills, np.int32)
