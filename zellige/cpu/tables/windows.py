"""Tables for copies of windows: rows and columns of a map picked one by one. Padding, cropping, staged planes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zellige.cpu.layout import Layout, Planes
from zellige.cpu.tables.lanes import copy_items, join, row_lanes
from zellige.cpu.tables.work import Work

PAD_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def positions(size: int, before: int, after: int, mode: str = "zeros") -> np.ndarray:
    """For every position of a padded axis, the position of the axis that it repeats, or −1. Negative padding crops.

    >>> positions(4, 2, -1, "reflect"), positions(2, 1, 1)
    (array([2, 1, 0, 1, 2]), array([-1,  0,  1, -1]))
    """
    axis = np.arange(size)
    room = (max(before, 0), max(after, 0))
    options = {"constant_values": -1} if mode not in PAD_MODES else {}
    padded = np.pad(axis, room, PAD_MODES.get(mode, "constant"), **options)  # type: ignore[call-overload]
    return padded[max(-before, 0):len(padded) - max(-after, 0)]


def window_work(source: Layout, target: Layout, rows: np.ndarray, columns: np.ndarray, lanes: int, fill: float = 0.0) -> Work:
    """target(n, c, y, x) = source(n, c, rows[y], columns[x]), or ``fill`` where either is −1."""
    return _windows(source, target, [(rows, columns)], lanes, fill)


@dataclass(frozen=True)
class Stage:
    """Planes made of a map for a convolution with a stride: one for each pair of a first row and a first column.

    Plane (row r, column c) of a channel holds the padded pixels (r + y · stride, c + x · stride). Every tap of the filter is an
    offset in one of them: with the phases of the stride for first columns that may be columns on from the output pixel; with
    the taps' own columns (``flat``) it is always the same column, so that rows need be no longer than the output's.
    """

    stride: tuple[int, int]
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @classmethod
    def of(cls, kernel: tuple[int, int], dilation: tuple[int, int], stride: tuple[int, int], flat: bool) -> Stage:
        rows = range(stride[0] if kernel[0] > 1 else 1)
        columns = range(0, kernel[1] * dilation[1], dilation[1]) if flat else range(stride[1] if kernel[1] > 1 else 1)
        return cls(stride, tuple(rows), tuple(columns))

    @property
    def planes(self) -> int:
        """Planes for each channel of the map."""
        return len(self.rows) * len(self.columns)

    def place(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The plane, and how many rows and columns on, that padded pixels (y, x) from an output pixel's own are found."""
        row, down = _nearest(self.rows, y, self.stride[0])
        column, right = _nearest(self.columns, x, self.stride[1])
        return row * len(self.columns) + column, down, right


def _nearest(starts: Sequence[int], position: np.ndarray, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """The last of the ``starts`` from which strides lead to each position, and how many."""
    apart = np.asarray(position)[..., None] - np.asarray(starts)
    strides = np.where((apart >= 0) & (apart % stride == 0), apart // stride, np.iinfo(np.int64).max)
    return strides.argmin(-1), strides.min(-1)


def stage_work(source: Layout, target: Planes, stage: Stage, padding: tuple[int, int, int, int], mode: str, lanes: int) -> Work:
    """The copies that fill a stage's planes, target channel = source channel · planes + plane. Pixels beyond the padded
    source are 0.
    """
    (_, _, height, width), (top, bottom, left, right) = source.shape, padding
    parts = []
    for first_row in stage.rows:
        for first_column in stage.columns:
            rows = _take(positions(height, top, bottom, mode), first_row + stage.stride[0] * np.arange(target.height))
            columns = _take(positions(width, left, right, mode), first_column + stage.stride[1] * np.arange(target.width))
            parts.append((rows, columns))
    return _windows(source, target, parts, lanes)


def pad_work(source: Layout, target: Layout, padding: tuple[int, int, int, int], mode: str, value: float, lanes: int) -> Work:
    """Padding and cropping of height and width."""
    top, bottom, left, right = padding
    _, _, height, width = source.shape
    return window_work(source, target, positions(height, top, bottom, mode), positions(width, left, right, mode), lanes,
                       value if mode == "constant" else 0.0)


def _take(axis: np.ndarray, places: np.ndarray) -> np.ndarray:
    """axis[places], −1 beyond its end."""
    return np.where(places < len(axis), axis[np.minimum(places, len(axis) - 1)], -1)


def _windows(source: Layout, target: Layout, planes: Sequence[tuple[np.ndarray, np.ndarray]], lanes: int,
             fill: float = 0.0) -> Work:
    images, channels, _, width = target.shape
    row = target.row if isinstance(target, Planes) else width
    parts = []
    for rows, columns in planes:
        offsets = rows[:, None] * source.strides[2] + columns * source.strides[3]
        parts.append(row_lanes(np.where((rows[:, None] >= 0) & (columns >= 0), offsets, -1), target.strides[2], row, lanes))
    count = len(parts[0].target)
    image, channel = (index.ravel() for index in np.indices((images, channels)))
    plane = channel % len(planes)
    source_offset = image * source.strides[0] + channel // len(planes) * source.strides[1]
    target_offset = image * target.strides[0] + channel * target.strides[1]
    tables = join(parts).tables(lanes) | {"fill": struct.unpack("<i", struct.pack("<f", fill))[0]}
    return copy_items(tables, plane * count, (plane + 1) * count, source_offset, target_offset)


def fill_work(target: Planes) -> Work:
    """Zeros around the images of every plane; the ends of rows are written by whoever writes the rows."""
    runs = target.margin_runs().astype(np.int32)
    if not len(runs):
        return Work({"items": np.zeros(0, np.int32), "runs": np.zeros((1, 2), np.int32), "run_count": 0})
    items = (np.arange(target.channels) * target.plane).astype(np.int32)
    cost = float(-(-runs[:, 1] // 16).sum())
    return Work({"items": items, "runs": runs, "run_count": len(runs)}, np.full(target.channels, max(cost, 1.0)))
