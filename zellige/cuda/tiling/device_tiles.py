"""Tiles as tensors on a device, in the type and order that kernels read; and what a backward pass must know of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from zellige.cuda.tiling.tiles import PADDING, Tiles
from zellige.cuda.tiling.transposed import transpose
from zellige.errors import CompileError, InputError

DTYPES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Transposed:
    """What a backward pass must know of Wᵀ in tiles; ``sources`` is where each of its values stands in W's, 1 + that, or 0."""

    starts: tuple[int, ...]
    form: tuple[int, int, int, bool]
    units: torch.Tensor
    rows: torch.Tensor
    sources: torch.Tensor


@dataclass(frozen=True)
class DeviceTiles:
    """``Tiles`` as tensors on a device: values (steps · tile × step), units, rows; and numbers that the host must know.

    ``eights``: whether the rows of every tile come in eights that lie side by side from a multiple of 8 on, so that 16 bytes of a
    token-major result are written at a time. ``transposed``: what training needs. Blocks that are 2:4 may hold half of their
    values, and where these stood (``compressed_blocks.py``). ``halves``: whose blocks there are in every step of tiles of two
    halves (``paired_blocks.py``); None where a block is as tall as its tile.
    """

    shape: tuple[int, int]
    tile: int
    step: int
    unit: int
    starts: tuple[int, ...]
    values: torch.Tensor
    units: torch.Tensor
    rows: torch.Tensor
    eights: bool = False
    transposed: Transposed | None = None
    halves: torch.Tensor | None = None

    @classmethod
    def upload(cls, tiles: Tiles, device: torch.device | str, dtype: torch.dtype, trained: bool = False) -> DeviceTiles:
        """``CompileError`` if tensor cores can't multiply the tiles: they want bf16 or fp16, powers of two, 16 or more.

        With ``trained`` gradients reach x; without it the values and all else that is added, but not x.
        """
        if dtype not in DTYPES:
            raise CompileError(f"tiles are multiplied in bfloat16 or float16, not in {dtype}; convert the model first")
        for name, size, least in (("tile", tiles.tile, 16), ("step", tiles.step, 16), ("unit", tiles.unit, 1)):
            if size < least or size & (size - 1):
                raise CompileError(f"tensor cores want a {name} that is a power of two, {least} or more, not {size}")
        values = torch.from_numpy(tiles.values).to(dtype).reshape(-1, tiles.step)
        back = None
        if trained:
            other = transpose(tiles)
            back = Transposed(tuple(other.starts.tolist()), (*other.shape, other.unit, in_eights(other)),
                              _units(other).to(device), torch.from_numpy(other.rows).to(device),
                              torch.from_numpy(other.values).flatten().to(device))
        return cls(tiles.shape, tiles.tile, tiles.step, tiles.unit, tuple(tiles.starts.tolist()), values.to(device),
                   _units(tiles).to(device), torch.from_numpy(tiles.rows).to(device), in_eights(tiles), back)

    def turned(self) -> DeviceTiles:
        """Wᵀ in tiles, of the values that W has now; ``InputError`` if the weight was not uploaded to be trained."""
        back = self.transposed
        if back is None:
            raise InputError("gradients reach x if the weight was uploaded with trained=True")
        rows, columns, unit, eights = back.form
        values = fetched(self.values.detach(), back.sources)
        return DeviceTiles((rows, columns), self.tile, self.step, unit, back.starts, values, back.units, back.rows, eights)


def fetched(values: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
    """The values of the transposed order."""
    return torch.cat([values.new_zeros(1), values.flatten()]).index_select(0, sources).view(-1, values.shape[1])


def in_eights(tiles: Tiles) -> bool:
    """Whether each 8 lines of the tiles are 8 rows side by side from a multiple of 8 on, or none.

    >>> in_eights(Tiles((9, 1), 8, 1, 1, np.arange(16), np.zeros(3), np.zeros(0), np.zeros((0, 8, 1))))
    True
    """
    if tiles.tile % 8:
        return False
    lines = tiles.rows.reshape(-1, 8)
    together = (lines == lines[:, :1] // 8 * 8 + np.arange(8)).all(1)
    return bool((together | (lines == PADDING).all(1)).all())


def _units(tiles: Tiles) -> torch.Tensor:
    """Units, and room behind them: the kernel loads the columns of one step more than there are."""
    return torch.nn.functional.pad(torch.from_numpy(tiles.units), (0, tiles.step // tiles.unit))
