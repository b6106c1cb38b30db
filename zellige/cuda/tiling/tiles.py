"""From the zeros of a weight to tiles: what is left, in the order in which the kernels use it.

Tile-wise sparsity (Guo et al., SC 2020; with 2:4 inside, arXiv 2402.10876) in PyTorch's order, where rows are outputs: the
rows that hold anything are cut, in order, into tiles of so many; each tile keeps the columns that any of its rows needs, at
the granularity of a *group* of columns. What is left of a tile is a small dense matrix, and tensor cores multiply it.

The kernels walk a tile in *steps* of so many columns. A step reads its columns in *units*: single columns, groups, or the
whole step where a group is as long as that or longer. So blocks of 64 or 128 are the same format with longer units.
The last step of a tile repeats the tile's last unit, with zeros as values: it reads what has been read anyway.

Rows of zeros make tiles too, of no steps: someone must write their outputs. They come last.

>>> weight = np.zeros((4, 8), np.float32)
>>> weight[1, [2, 5]] = weight[3, 5] = 1
>>> tiles = cut_tiles(weight, tile=2, group=1, step=4)
>>> tiles.rows.tolist(), tiles.starts.tolist(), tiles.units.tolist()
([1, 3, 0, 2], [0, 1, 1], [2, 5, 5, 5])
>>> np.array_equal(expand(tiles), weight)
True
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zellige.cuda.tiling.row_order import row_order
from zellige.errors import CompileError

PADDING = -1
"""What stands for a row that a tile lacks."""

INDEX = np.dtype(np.int32)


@dataclass(frozen=True)
class Tiles:
    """A weight of ``shape`` (rows × columns), cut into tiles of ``tile`` rows that are walked ``step`` columns at a time.

    ``rows``: the weight's row for every line of every tile, or ``PADDING``; every row stands there once. ``starts``: the
    first step of every tile, and behind them the number of steps. ``units``: the first column of every unit of every step.
    ``values``: steps × tile × step, so that what a step needs lies together.
    """

    shape: tuple[int, int]
    tile: int
    group: int
    step: int
    rows: np.ndarray
    starts: np.ndarray
    units: np.ndarray
    values: np.ndarray

    @property
    def unit(self) -> int:
        """Columns that lie side by side in every step."""
        return min(self.group, self.step)

    @property
    def steps(self) -> int:
        return int(self.starts[-1])

    @property
    def work(self) -> float:
        """Multiplications that the tiles take, padding too, as a share of those of the dense weight."""
        return self.steps * self.tile * self.step / (self.shape[0] * self.shape[1])

    def nbytes(self, itemsize: int) -> int:
        """Bytes of values at ``itemsize`` bytes each, and of all indices."""
        return self.values.size * itemsize + self.rows.nbytes + self.starts.nbytes + self.units.nbytes


def cut_tiles(weight: np.ndarray, tile: int = 128, group: int = 1, step: int = 64, clustered: bool = False) -> Tiles:
    """Find what is left of a weight (rows × columns, any real dtype) when its zeros are skipped tile by tile.

    ``clustered``: rows that keep like columns share a tile (``row_order.py``), instead of neighbours; who writes tokens × rows
    then writes to places that lie apart. ``CompileError`` if the weight is no matrix, or if neither of ``group`` and ``step``
    divides the other.
    """
    if weight.ndim != 2 or 0 in weight.shape:
        raise CompileError(f"tiles are cut from a matrix of rows × columns, neither of them 0, not from {list(weight.shape)}")
    if min(tile, group, step) < 1 or (step % group and group % step):
        raise CompileError(f"tiles need a group of columns and a step of which one divides the other, not {group} and {step}")
    nonzero = weight != 0
    kept = np.flatnonzero(nonzero.any(1))
    if clustered:
        kept = kept[row_order(_by_group(nonzero[kept], group), tile)]
    cut = [kept[start:start + tile] for start in range(0, len(kept), tile)]
    columns = [_unit_starts(nonzero[rows].any(0), group, step) for rows in cut]
    counts = [len(starts) * min(group, step) // step for starts in columns]
    values = np.zeros((sum(counts), tile, step), weight.dtype)
    begin = 0
    for rows, starts, count in zip(cut, columns, counts, strict=True):
        values[begin:begin + count, :len(rows)] = _compact(weight, rows, starts, min(group, step), count)
        begin += count
    dropped = np.setdiff1d(np.arange(weight.shape[0]), kept, assume_unique=True)
    cut += [dropped[start:start + tile] for start in range(0, len(dropped), tile)]
    counts += [0] * (len(cut) - len(counts))
    return Tiles((weight.shape[0], weight.shape[1]), tile, group, step,
                 rows=np.concatenate([_filled(rows, tile) for rows in cut]).astype(INDEX),
                 starts=np.cumsum([0, *counts]).astype(INDEX),
                 units=np.concatenate([*columns, np.zeros(0, INDEX)]).astype(INDEX), values=values)


def _unit_starts(used: np.ndarray, group: int, step: int) -> np.ndarray:
    """First columns of the units that hold anything (``used``: one bool per column), the last repeated to fill a step."""
    groups = np.flatnonzero(_by_group(used[None], group)[0])
    inside = np.arange(0, group, min(group, step))
    starts = (groups[:, None] * group + inside).ravel()
    starts = starts[starts < len(used)]
    return np.pad(starts, (0, -len(starts) % (step // min(group, step))), mode="edge")


def _by_group(used: np.ndarray, group: int) -> np.ndarray:
    """Rows × columns to rows × groups: whether any column of a group is used."""
    rows, columns = used.shape
    width = -(-columns // group)
    return np.logical_or.reduce(np.pad(used, ((0, 0), (0, width * group - columns))).reshape(rows, width, group), axis=2)


def _compact(weight: np.ndarray, rows: np.ndarray, starts: np.ndarray, unit: int, steps: int) -> np.ndarray:
    """The values of a tile's rows, cut into steps: steps × rows × step."""
    columns = (starts[:, None] + np.arange(unit)).ravel()
    first = np.concatenate([[True], starts[1:] != starts[:-1]]).repeat(unit)  # where the last unit is not yet repeated
    there = first & (columns < weight.shape[1])
    block = np.zeros((len(rows), len(columns)), weight.dtype)
    block[:, there] = weight[np.ix_(rows, columns[there])]
    return block.reshape(len(rows), steps, -1).swapaxes(0, 1)


def _filled(rows: np.ndarray, tile: int) -> np.ndarray:
    return np.pad(rows, (0, tile - len(rows)), constant_values=PADDING)


def expand(tiles: Tiles) -> np.ndarray:
    """The weight that the tiles were cut from."""
    weight = np.zeros(tiles.shape, tiles.values.dtype)
    for tile in range(len(tiles.starts) - 1):
        rows = tiles.rows[tile * tiles.tile:(tile + 1) * tiles.tile]
        for step in range(tiles.starts[tile], tiles.starts[tile + 1]):
            columns = step_columns(tiles, step)
            there = columns < tiles.shape[1]
            np.add.at(weight, np.ix_(rows[rows != PADDING], columns[there]), tiles.values[step][rows != PADDING][:, there])
    return weight


def multiply(tiles: Tiles, x: np.ndarray) -> np.ndarray:
    """W · X from the tiles, slowly, in float64: the oracle of the kernels. ``x``: columns × tokens; the result: rows × tokens."""
    y = np.zeros((tiles.shape[0], x.shape[1]))
    for tile in range(len(tiles.starts) - 1):
        sums = np.zeros((tiles.tile, x.shape[1]))
        for step in range(tiles.starts[tile], tiles.starts[tile + 1]):
            columns = step_columns(tiles, step)
            there = columns < tiles.shape[1]
            sums += tiles.values[step][:, there].astype(np.float64) @ x[columns[there]].astype(np.float64)
        rows = tiles.rows[tile * tiles.tile:(tile + 1) * tiles.tile]
        y[rows[rows != PADDING]] = sums[rows != PADDING]
    return y


def step_columns(tiles: Tiles, step: int) -> np.ndarray:
    """The columns that a step reads; those past the weight's last have zeros as values."""
    per_step = tiles.step // tiles.unit
    starts = tiles.units[step * per_step:(step + 1) * per_step]
    return (starts[:, None] + np.arange(tiles.unit)).ravel()
