"""Tables of the Winograd kernels: where windows are read, where outputs go, and how strips and groups are shared out.

A *run* is some neighbouring tiles of one row (``kernels/winograd_runs.py``). Runs that would hang over the map's
right or bottom edge move back inside, and store only what no other run does. Where the source has margins that hold the
padding, their windows need no masks then. Masks keep what may not be read from being read: padding without margins, and
what lies outside where the map itself is smaller than a run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from zellige.cpu.kernels.winograd_pieces import shares
from zellige.cpu.kernels.winograd_pooling import POOL
from zellige.cpu.kernels.winograd_runs import EDGES, OutputFields, Tiling, WindowFields
from zellige.cpu.layout import Planes
from zellige.cpu.tables.parts import cut_evenly
from zellige.cpu.tables.work import lane_bits

REACH = 1000  # elements around a buffer that may be read; the arena has more at both ends

Padding = tuple[int, int, int, int]
"""Top, bottom, left and right."""


@dataclass(frozen=True, eq=False)
class Runs:
    """Every run's image, first pixel (y, x) and first pixel that it owns; it owns those from there to its last in the map.

    Runs are ``width`` × ``height`` pixels; the ``tiling`` says how many fill a vector.
    """

    height: int
    width: int
    tiling: Tiling
    image: np.ndarray
    y: np.ndarray
    x: np.ndarray
    own_y: np.ndarray
    own_x: np.ndarray

    def __len__(self) -> int:
        return len(self.image)

    @property
    def together(self) -> int:
        return self.tiling.runs

    @property
    def vectors(self) -> int:
        return -(-len(self) // self.together)

    @property
    def share(self) -> int:
        """How often each tile of the last vector has a place in it, as few runs may leave room: 1, 2 or 4 times."""
        left = (len(self) - 1) % self.together + 1
        return next((share for share in shares(self.tiling.tile) if share * left <= self.together), 1)

    @property
    def load(self) -> float:
        """Vectors, of which the last counts by the share that its runs fill."""
        return self.vectors - 1 + 1 / self.share

    def in_vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """The runs of every vector, and which of them are there for the first time. Both of shape (vectors, together).

        A shared vector has each of its runs several times, in neighbouring lanes; what only fills it up is the first run again.
        """
        before = (self.vectors - 1) * self.together
        last = np.pad(np.arange(before, len(self)), (0, self.together // self.share - (len(self) - before)))
        again = np.repeat(last.reshape(-1, self.tiling.beside), self.share, axis=0)
        order = np.concatenate([np.arange(before), again.ravel()])
        once = np.zeros(len(order), bool)
        once[np.unique(order, return_index=True)[1]] = True
        return order.reshape(self.vectors, -1), once.reshape(self.vectors, -1)


def cut_runs(images: int, height: int, width: int, lanes: int, tiling: Tiling) -> Runs:
    """The runs that cover the output maps, row after row.

    >>> runs = cut_runs(images=1, height=6, width=20, lanes=16, tiling=Tiling(4, runs=4))
    >>> list(zip(runs.y.tolist(), runs.x.tolist())), runs.own_x.tolist()
    ([(0, 0), (0, 4), (2, 0), (2, 4)], [0, 16, 0, 16])
    """
    tile, across = tiling.tile, tiling.width(lanes)
    image, own_y, own_x = (axis.ravel() for axis in np.meshgrid(
        np.arange(images), np.arange(0, height, tile), np.arange(0, width, across), indexing="ij"))
    y, x = np.minimum(own_y, max(height - tile, 0)), np.minimum(own_x, max(width - across, 0))
    return Runs(tile, across, tiling, image, y, x, own_y, own_x)


def pool_runs(runs: Runs) -> Runs:
    """The runs of the pooled map, each of the same tiles: half as wide and high. All places are even numbers before."""
    height, width, y, x, own_y, own_x = (
        value // POOL for value in (runs.height, runs.width, runs.y, runs.x, runs.own_y, runs.own_x))
    return Runs(height, width, runs.tiling, runs.image, y, x, own_y, own_x)  # type: ignore[arg-type]


def window_table(runs: Runs, source: Planes, padding: Padding) -> np.ndarray:
    """What the input transform reads, with the columns of ``WindowFields``. Shape (vectors, columns), int32."""
    top, bottom, left, right = padding
    tile, window = runs.tiling.tile, runs.tiling.transform.window
    y, x, margins = runs.y - top, runs.x - left, source.margins
    offset = runs.image * source.image + y * source.row + x
    rows = _readable(y, window, source.height, (top, bottom), (margins.top, margins.bottom))
    columns = _readable(x, runs.width + 2, source.width, (left, right), (margins.left, margins.right))
    whole = np.asarray(rows.all(1) & columns.all(1))
    beyond = np.pad(columns, ((0, 0), (0, 2 * tile - window)))
    first, second = (lane_bits(beyond[:, begin:begin + runs.width]) for begin in (0, tile))
    inner = np.asarray(rows[:, 1:-1].all(1) & columns[:, 1:-1].all(1))
    order, _ = runs.in_vectors()
    kind = np.where(whole[order].all(1), 1, np.where(inner[order].all(1) & _within_reach(runs, offset, source), EDGES, 0))
    sides = [columns[:, :-2:tile], columns[:, window - 1::tile]]
    ends = [np.broadcast_to(row[:, None], sides[0].shape) for row in (rows[:, 0], rows[:, -1])]
    table = _table(kind, offset[order], lane_bits(rows)[order], first[order], second[order],
                   *(_tile_bits(edge[order], tile) for edge in ends + sides))
    assert table.shape[1] == WindowFields(runs.together).count
    return table


def _readable(begin: np.ndarray, count: int, size: int, padding: tuple[int, int], margins: tuple[int, int]) -> np.ndarray:
    """Which of the ``count`` rows (or columns) from ``begin`` on may be read: those of the map, and padding that margins hold."""
    before, after = (pad if pad <= margin else 0 for pad, margin in zip(padding, margins, strict=True))
    place = begin[:, None] + np.arange(count)
    return (place >= -before) & (place < size + after)


def _within_reach(runs: Runs, offset: np.ndarray, source: Planes) -> bool:
    """Whether windows that are read whole stay in readable memory: of a buffer, and a little around it."""
    end = (source.images - 1) * source.image + source.span
    last = offset + (runs.tiling.transform.window - 1) * source.row + runs.width + runs.tiling.tile
    return bool(offset.min() >= -REACH and last.max() <= end + REACH)


def _tile_bits(tiles: np.ndarray, side: int) -> np.ndarray:
    """Vectors × runs × tiles → the bits of a vector's tiles: tile q of the vector of pixels v is lane side · q + v."""
    return lane_bits(tiles.reshape(len(tiles), side, -1).transpose(0, 2, 1).reshape(len(tiles), -1))


def output_table(runs: Runs, target: Planes) -> np.ndarray:
    """What the output transform writes, with the columns of ``OutputFields``: every pixel once, and zeros after the end of
    every row. Shape (vectors, columns), int32."""
    offset = runs.image * target.image + runs.y * target.row + runs.x
    y, x = runs.y[:, None] + np.arange(runs.height), runs.x[:, None] + np.arange(runs.width)
    rows = (y >= runs.own_y[:, None]) & (y < target.height)
    columns = (x >= runs.own_x[:, None]) & (x < target.width)
    store = rows * lane_bits(columns)[:, None]
    ends_row = (runs.own_x == runs.own_x.max()) & (target.row > target.width)
    first_row = runs.own_y - runs.y
    end_row = np.where(ends_row, np.minimum(target.height - runs.y, runs.height), first_row)
    whole = rows.all(1) & columns.all(1) & ~ends_row
    order, once = runs.in_vectors()
    first_row, end_row, store = first_row[order] * once, end_row[order] * once, store[order] * once[..., None]
    table = _table((whole[order] & once).all(1), (ends_row[order] & once).any(1), offset[order], first_row, end_row,
                   store.reshape(len(store), -1))
    assert table.shape[1] == OutputFields(runs.together, runs.height).count
    return table


def _table(*columns: ArrayLike) -> np.ndarray:
    return np.column_stack([np.asarray(column) for column in columns]).astype(np.uint32).view(np.int32)


def cut_strips(parts: np.ndarray, share: int, widest: int) -> list[np.ndarray]:
    """As few strips of at most ``widest`` vectors as each part of the map, a range of vectors, can be cut into; a shared last
    vector is one by itself.

    For every part first vector, vectors and kind of each strip. Shape (strips, 3), int32.

    >>> [strips.tolist() for strips in cut_strips(np.array([[0, 8]]), 1, 3)]
    [[[0, 3, 3], [3, 3, 3], [6, 2, 2]]]
    >>> [strips.tolist() for strips in cut_strips(np.array([[0, 2], [2, 4]]), 2, 3)]
    [[[0, 2, 2]], [[2, 1, 1], [3, 1, 5]]]
    """
    result = []
    for begin, end in parts.tolist():
        plain = end - (share > 1 and end == parts[-1, 1])
        ranges = begin + cut_evenly(plain - begin, widest) if plain > begin else np.zeros((0, 2), np.int32)
        strips = [(first, last - first, last - first) for first, last in ranges.tolist()]
        result.append(np.array([*strips, *([(plain, 1, widest + share)] if plain < end else [])], np.int32))
    return result


def group_items(strips: list[np.ndarray], groups: int) -> np.ndarray:
    """Items of ``WinogradGroup``: first strip and end of strips of a part of the map, group. Shape (items, 3), int32."""
    ends = np.cumsum([0, *map(len, strips)])
    ranges = np.repeat(np.stack([ends[:-1], ends[1:]], 1), groups, axis=0)
    return np.column_stack([ranges, np.tile(np.arange(groups), len(strips))]).astype(np.int32)
