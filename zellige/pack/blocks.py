"""A weight as its kept blocks: a bitmap that says which blocks are there, and the numbers in them.

A weight is seen as rows (outputs) × columns (inputs) × taps, and cut into blocks of so many rows, columns and taps;
blocks at the edges may be smaller. ``kept`` has one bit per block, in row-major order of the blocks, least significant
bit first. ``values`` are the elements of the kept blocks in the weight's own order: take the weight, leave out what
lies in missing blocks. So ragged edges need no padding, and unpacking is one masked assignment.

A block is left out if all its elements are zeros, of either sign: a mask multiplied into weights leaves ``-0.0``
behind. What is left out comes back as ``+0.0``; everything in a kept block comes back bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np

from zellige.errors import FileFormatError

Block = tuple[int, int, int]
"""How many rows, columns and taps a block has."""

SIZES = ((8, 8), (8, 4), (4, 8), (4, 4), (8, 2), (2, 2), (8, 1), (4, 1), (1, 8), (1, 4), (1, 1))
"""Rows × columns that ``choose_block`` tries, with all taps and with one; powers of two. Larger patterns are well kept
by 8 × 8, whose bitmap is at most a 2048th of the dense weight."""

BITS: dict[np.dtype, np.dtype] = {np.dtype(np.float32): np.dtype(np.uint32), np.dtype(np.float64): np.dtype(np.uint64)}
"""The element types that can be packed, and the unsigned integers in which their bits are looked at."""


@dataclass(frozen=True)
class PackedWeight:
    """A weight of ``shape`` cut into blocks: ``kept`` is the bitmap (uint8), ``values`` what the kept blocks hold."""

    shape: tuple[int, ...]
    block: Block
    kept: np.ndarray
    values: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.kept.nbytes + self.values.nbytes


def pack_blocks(weight: np.ndarray, block: Block) -> PackedWeight:
    """Keep the blocks of ``weight`` (rows × columns [× taps …], f32 or f64) that hold anything but zeros.

    >>> packed = pack_blocks(np.float32([[1, 2, 0, 0], [3, 4, 0, 0]]), (2, 2, 1))
    >>> packed.kept.tolist(), packed.values.tolist()
    ([1], [1.0, 2.0, 3.0, 4.0])
    """
    cube = weight.reshape(_extents(weight.shape))
    grid = _nonzero_blocks(_nonzero(cube), block)
    values = cube[_elements(grid, block, cube.shape)].ravel()
    return PackedWeight(weight.shape, block, np.packbits(grid, bitorder="little"), values)


def pack_smallest(weight: np.ndarray) -> PackedWeight | None:
    """Pack ``weight`` in the block that ``choose_block`` finds; ``None`` if it is best left dense."""
    block = choose_block(weight)
    return None if block is None else pack_blocks(weight, block)


def unpack_blocks(packed: PackedWeight) -> np.ndarray:
    """The dense weight, or ``FileFormatError`` if the parts of ``packed`` don't fit together."""
    grid, extents = check_blocks(packed), _extents(packed.shape)
    cube = np.zeros(extents, packed.values.dtype)
    elements = _elements(grid, packed.block, extents)
    cube[elements] = packed.values.reshape(-1, *cube.shape[elements.ndim:])
    return cube.reshape(packed.shape)


def check_blocks(packed: PackedWeight) -> np.ndarray:
    """Which blocks are kept, as a grid, or ``FileFormatError`` if the parts of ``packed`` don't fit together."""
    if len(packed.shape) < 2 or min(packed.shape) < 1:
        raise FileFormatError(f"a packed weight has two dimensions or more, none of size 0, not {list(packed.shape)}")
    flat = packed.kept.ndim == packed.values.ndim == 1
    if not flat or packed.kept.dtype != np.uint8 or packed.values.dtype not in BITS:
        found = " and ".join(f"{part.dtype}{list(part.shape)}" for part in (packed.kept, packed.values))
        raise FileFormatError(f"a packed weight has a bitmap of uint8 and one list of f32 or f64 values, not {found}")
    extents = _extents(packed.shape)
    rows, columns, taps = packed.block
    if not (1 <= rows <= extents[0] and 1 <= columns <= extents[1] and taps in (1, extents[2])):
        raise FileFormatError(f"blocks of {rows} rows × {columns} columns × {taps} taps don't fit {list(packed.shape)}")
    grid = _read_bitmap(packed.kept, _grid_shape(extents, packed.block))
    if packed.values.size != (expected := _count_elements(grid, packed.block, extents)):
        raise FileFormatError(f"the kept blocks hold {expected} values, not {packed.values.size}")
    return grid


def choose_block(weight: np.ndarray) -> Block | None:
    """The block in which ``weight`` takes the fewest bytes; ``None`` if that is no less than the dense array.

    Of equals the first counts: all taps before one, then the order of ``SIZES``.

    >>> choose_block(np.kron(np.eye(4, dtype=np.float32), np.ones((8, 8), np.float32)))
    (8, 8, 1)
    """
    if weight.ndim < 2 or weight.dtype not in BITS:
        return None
    extents = _extents(weight.shape)
    nonzero = _nonzero(weight.reshape(extents))
    if nonzero.all():
        return None
    best, fewest = None, weight.nbytes
    for taps in sorted({1, extents[2]}, reverse=True):
        grids = {(1, 1): _nonzero_blocks(nonzero, (1, 1, taps))}
        for rows, columns in SIZES:
            if rows > extents[0] or columns > extents[1]:
                continue
            grid = _grid_of(grids, rows, columns)
            nbytes = -(-grid.size // 8) + weight.itemsize * _count_elements(grid, (rows, columns, taps), extents)
            if nbytes < fewest:
                best, fewest = (rows, columns, taps), nbytes
    return best


def _grid_of(grids: dict[tuple[int, int], np.ndarray], rows: int, columns: int) -> np.ndarray:
    """Which blocks hold anything, from the blocks of half the size; ``grids`` remembers those."""
    if (rows, columns) not in grids:
        half, step = ((rows, columns // 2), (1, 2, 1)) if columns > 1 else ((rows // 2, columns), (2, 1, 1))
        grids[rows, columns] = _nonzero_blocks(_grid_of(grids, *half), step)
    return grids[rows, columns]


def _read_bitmap(kept: np.ndarray, counts: tuple[int, ...]) -> np.ndarray:
    """Which blocks are kept, as a grid of ``counts`` blocks along each axis."""
    blocks = prod(counts)
    if kept.nbytes != -(-blocks // 8):
        raise FileFormatError(f"{blocks} blocks need a bitmap of {-(-blocks // 8)} bytes, not {kept.nbytes}")
    bits = np.unpackbits(kept, bitorder="little").astype(bool)
    if bits[blocks:].any():
        raise FileFormatError(f"the bitmap keeps blocks past the last of {blocks}")
    return bits[:blocks].reshape(counts)


def _extents(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Rows, columns and taps of a weight."""
    return shape[0], shape[1], prod(shape[2:])


def _grid_shape(extents: tuple[int, ...], block: Block) -> tuple[int, ...]:
    """How many blocks there are along each axis."""
    return tuple(-(-extent // size) for extent, size in zip(extents, block, strict=True))


def _nonzero(cube: np.ndarray) -> np.ndarray:
    """Where not ±0.0 stands, by the bits: in flush-to-zero mode denormals compare equal to zero."""
    return (np.ascontiguousarray(cube).view(BITS[cube.dtype]) << 1) != 0


def _nonzero_blocks(nonzero: np.ndarray, block: Block) -> np.ndarray:
    """Which blocks hold anything: along each axis in turn, the first of every group, or the second, or …"""
    for axis, size in enumerate(block):
        along = np.moveaxis(nonzero, axis, 0)
        first = along[::size].copy()
        for position in range(1, size):
            part = along[position::size]
            first[: len(part)] |= part
        nonzero = np.moveaxis(first, 0, axis)
    return np.ascontiguousarray(nonzero)


def _count_elements(grid: np.ndarray, block: Block, extents: tuple[int, ...]) -> int:
    """How many elements lie in kept blocks; whole blocks and those cut off at the edges are counted apart."""
    regions = []
    for extent, size in zip(extents, block, strict=True):
        whole, rest = divmod(extent, size)
        regions.append(((slice(0, whole), size), (slice(whole, None), rest)))
    return sum(int(np.count_nonzero(grid[rows, columns, taps])) * r * c * t
               for (rows, r), (columns, c), (taps, t) in product(*regions))


def _elements(grid: np.ndarray, block: Block, extents: tuple[int, ...]) -> np.ndarray:
    """Which elements lie in kept blocks: rows × columns [× taps, unless each block has all]."""
    kept = grid[:, :, 0] if grid.shape[2] == 1 else grid
    for axis in range(kept.ndim):
        kept = np.repeat(kept, block[axis], axis)[(slice(None),) * axis + (slice(extents[axis]),)]
    return kept
