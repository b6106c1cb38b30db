"""A weight as tile-vector-wise tiles: 128 surviving rows, a list of columns for each tile, 2:4 along that list (arXiv 2402.10876).

Tile-wise weights without 2:4 are packed in the same way, into other images (``swizzled``).

The order of a list is free, since the kernel gathers rows of X by it: columns go in whatever fours are 2:4 (``patterns/fours``).
Places that they leave, and those up to whole steps of 64, hold zeros, at the column before. Rows without any non-zero come last, in
tiles without columns: the kernel gives them what the epilogue makes of zero.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zellige.cuda.tiling import swizzled, two_four
from zellige.cuda.tiling.two_four import ROWS, STEP, compress
from zellige.errors import InputError
from zellige.patterns.fours import EMPTY, arrange, fewest, worth_packing

DTYPES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class VectorTiles:
    """Tiles of an N × K weight, longest first; all arrays on one device."""

    shape: tuple[int, int]
    dtype: torch.dtype
    rows: Tensor
    """int32 [tiles, 128]: the output that each row makes; -1 where a tile has fewer."""
    starts: Tensor
    """int32 [tiles + 1]: the first step of each tile, and how many steps there are."""
    columns: Tensor
    """int32 [steps × 64]: the row of X that each column takes."""
    images: Tensor
    """uint8 [steps, 9216]: values and metadata, as ``two_four`` lays them out; [steps, 16384]: values as ``swizzled`` does."""
    longest: int
    """Steps of the longest tile."""

    @property
    def density(self) -> float:
        """Stored values, padding included, in those of the dense weight."""
        stored = len(self.images) * ROWS * STEP / (2 if self.two_four else 1)
        return stored / (self.shape[0] * self.shape[1])

    @property
    def two_four(self) -> bool:
        """Whether they are 2:4 along their lists, and packed so."""
        return self.images.shape[1] == two_four.IMAGE_BYTES

    def to(self, device: torch.device | str) -> VectorTiles:
        arrays = {name: getattr(self, name).to(device) for name in ("rows", "starts", "columns", "images")}
        return replace(self, **arrays)


def vector_tiles(
    weight: Tensor, columns: Sequence[Sequence[int] | NDArray] | None = None, sparse: bool = True
) -> VectorTiles:
    """Pack a bf16 or fp16 weight, on any device; the tiles are on the CPU.

    ``columns`` lists the kept columns of each tile of 128 surviving rows, in the order in which they are 2:4. Without it fours are
    found from the zeros alone, among the columns that have a non-zero in the tile; weights have them that ``zl.prune`` made 2:4
    in tiles of 128 rows or a multiple. Tiles are 128 surviving rows, or those that survive of 128 as they stand, whichever takes
    fewer steps. Without ``sparse`` values are kept as they are, columns ascending, 2:4 or not.

    Raises:
        InputError: a tile isn't 2:4 in the order given, or in any that was found; a list misses a column that isn't zero, or names
            one twice.
    """
    if weight.dtype not in DTYPES or weight.ndim != 2 or not weight.numel():
        raise InputError(f"expected a bfloat16 or float16 matrix, got {weight.dtype} {list(weight.shape)}")
    bits = weight.detach().contiguous().view(torch.int16).cpu().numpy().view(np.uint16)
    bits = np.where(bits == 0x8000, np.uint16(0), bits)  # a negative zero is a zero
    full = (bits != 0).any(axis=1)
    surviving, dropped = np.flatnonzero(full), np.flatnonzero(~full)
    tiles = _by_rows(surviving)
    if columns is not None:
        if len(columns) != len(tiles):
            raise InputError(f"expected a list of columns for each of {len(tiles)} tiles of {ROWS} surviving rows, "
                             f"got {len(columns)}")  # fmt: skip
        lists = [_columns(bits[rows], listed, index) for index, (rows, listed) in enumerate(zip(tiles, columns, strict=True))]
    elif sparse:
        tiles, lists = _in_fours(bits, surviving, tiles)
    else:
        lists = [np.flatnonzero(bits[rows].any(axis=0)) for rows in tiles]
    order = sorted(range(len(tiles)), key=lambda index: -len(lists[index]))
    parts = [_pack(bits, tiles[index], lists[index], index, sparse) for index in order]
    row_tiles = [tiles[index] for index in order] + [dropped[first : first + ROWS] for first in range(0, len(dropped), ROWS)]
    steps = [len(part) for part in parts] + [0] * (len(row_tiles) - len(parts))
    image_bytes = two_four.IMAGE_BYTES if sparse else swizzled.IMAGE_BYTES
    return VectorTiles(
        shape=(weight.shape[0], weight.shape[1]),
        dtype=weight.dtype,
        rows=torch.from_numpy(np.stack([_of_128(rows) for rows in row_tiles])),
        starts=torch.from_numpy(np.concatenate([[0], np.cumsum(steps)]).astype(np.int32)),
        columns=torch.from_numpy(np.concatenate([np.zeros(0), *(_padded(lists[index]) for index in order)]).astype(np.int32)),
        images=torch.from_numpy(np.concatenate([np.zeros((0, image_bytes), np.uint8), *parts])),
        longest=max(steps),
    )


def vector_weight(tiles: VectorTiles) -> Tensor:
    """The weight that was packed 2:4, on the CPU.

    >>> weight = torch.tensor([[1.0, 0.0, 2.0, 0.0], [0.0, 0.0, 3.0, 4.0]], dtype=torch.float16)
    >>> torch.equal(vector_weight(vector_tiles(weight)), weight)
    True
    """
    weight = np.zeros(tiles.shape, np.uint16)
    starts, columns = tiles.starts.cpu().numpy(), tiles.columns.cpu().numpy()
    images = tiles.images.cpu().numpy()
    for tile, rows in enumerate(tiles.rows.cpu().numpy()):
        first, last = starts[tile], starts[tile + 1]
        part = two_four.expand(*two_four.from_images(images[first:last]))
        there = rows >= 0
        np.bitwise_or.at(weight, np.ix_(rows[there], columns[first * STEP : last * STEP]), part[there])
    return torch.from_numpy(weight.view(np.int16)).view(tiles.dtype)


def stacked(parts: Sequence[VectorTiles]) -> VectorTiles:
    """The tiles of weights of one element type and as many columns that stand on top of one another, on the CPU; longest first.

    >>> above, below = (torch.tensor([[1.0, 0.0, 2.0, 0.0]], dtype=torch.float16) * factor for factor in (1, 2))
    >>> vector_weight(stacked([vector_tiles(above), vector_tiles(below)])).tolist()
    [[1.0, 0.0, 2.0, 0.0], [2.0, 0.0, 4.0, 0.0]]
    """
    if len({(part.shape[1], part.dtype, part.two_four) for part in parts}) != 1:
        raise InputError(f"expected tiles of one kind, with as many columns, got {[(part.shape, part.dtype) for part in parts]}")
    above = np.cumsum([0, *(part.shape[0] for part in parts)])
    rows = torch.cat([torch.where(part.rows < 0, part.rows, part.rows + first)
                      for part, first in zip(parts, above.tolist(), strict=False)])
    lengths = torch.cat([part.starts.diff() for part in parts])
    order = lengths.argsort(descending=True, stable=True)
    starts = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    steps = torch.cat([torch.arange(int(starts[tile]), int(starts[tile + 1])) for tile in order])
    columns, images = (torch.cat([getattr(part, name) for part in parts]) for name in ("columns", "images"))
    return VectorTiles((int(above[-1]), parts[0].shape[1]), parts[0].dtype, rows[order],
                       torch.cat([starts[:1], lengths[order].cumsum(0)]).int(), columns.reshape(-1, STEP)[steps].reshape(-1),
                       images[steps], int(lengths.max()))


Parts = list[NDArray]
"""An array for each tile."""


def least_work(weight: Tensor) -> float:
    """2:4 tiles of a matrix take this share of the dense multiplications at least: known before fours are sought.

    >>> least_work(torch.ones(128, 128))
    1.0
    """
    marks = (weight != 0).cpu().numpy()
    tiles = _by_rows(np.flatnonzero(marks.any(axis=1)))
    return sum(fewest(marks[rows]) for rows in tiles) * 2 * ROWS / marks.size


def _by_rows(surviving: NDArray) -> Parts:
    return [surviving[first : first + ROWS] for first in range(0, len(surviving), ROWS)]


def _in_fours(bits: NDArray[np.uint16], surviving: NDArray, tiles: Parts) -> tuple[Parts, Parts]:
    """Tiles, and their columns in fours that are 2:4, with ``EMPTY`` places."""
    cuts, best = [tiles], None
    if len(surviving) < len(bits):
        as_they_stand = np.split(surviving, np.searchsorted(surviving, range(ROWS, len(bits), ROWS)))
        cuts.append([rows for rows in as_they_stand if len(rows)])
    for cut in cuts:
        lists = _fours(bits, cut)
        if lists is not None and (best is None or _steps(lists) < _steps(best[1])):
            best = cut, lists
        if lists is not None and all(len(fours) == fewest(bits[rows] != 0) for rows, fours in zip(cut, lists, strict=True)):
            break
    if best is None:
        raise InputError(f"of the columns that some tile of {ROWS} surviving rows keeps, no more than two fit in four in any order "
                         "that was found; prune to 2:4, as zl.TileVectorWise(128, 2, 4) does")
    return best[0], [fours.reshape(-1) for fours in best[1]]


def _fours(bits: NDArray[np.uint16], tiles: Parts) -> Parts | None:
    """The columns of every tile in fours, looked for side by side; None if those of some tile are not 2:4 in any order that was
    found."""
    marks = [bits[rows] != 0 for rows in tiles]
    lists = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for one, fours in zip(marks, pool.map(arrange, marks), strict=True):
            if not worth_packing(one, fours):
                pool.shutdown(wait=True, cancel_futures=True)
                return None
            lists.append(fours)
    return lists


def _steps(lists: Parts) -> int:
    return sum(-(-fours.size // STEP) for fours in lists)


def _of_128(rows: NDArray) -> NDArray[np.int32]:
    return np.pad(rows, (0, ROWS - len(rows)), constant_values=-1).astype(np.int32)


def _columns(tile: NDArray, listed: Sequence[int] | NDArray, index: int) -> NDArray[np.int64]:
    """The kept columns of one tile, in the order that was given."""
    columns = np.asarray(listed, np.int64)
    missing = np.setdiff1d(np.flatnonzero(tile.any(axis=0)), columns)
    strange = np.setdiff1d(columns, np.arange(tile.shape[1]))
    twice = len(columns) - len(np.unique(columns))
    if len(missing) or len(strange) or twice:
        raise InputError(f"tile {index}: expected every column that isn't zero once, out of {tile.shape[1]}; "
                         f"{len(missing)} are missing, {len(strange)} don't exist, {twice} are listed twice")  # fmt: skip
    return columns


def _padded(columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """To whole steps, and with the column before in empty places."""
    before = np.maximum.accumulate(np.where(columns == EMPTY, 0, np.arange(len(columns))))
    return np.pad(columns[before], (0, -len(columns) % STEP), mode="edge")


def _pack(bits: NDArray[np.uint16], rows: NDArray, columns: NDArray[np.int64], index: int, sparse: bool) -> NDArray[np.uint8]:
    tile = np.zeros((ROWS, len(columns) + -len(columns) % STEP), np.uint16)
    tile[: len(rows), : len(columns)] = np.where(columns == EMPTY, np.uint16(0), bits[np.ix_(rows, columns)])
    if not sparse:
        return swizzled.images(tile)
    try:
        return two_four.images(*compress(tile))
    except InputError as error:
        raise InputError(f"tile {index} of 128 surviving rows, in the order of its columns: {error}") from error
