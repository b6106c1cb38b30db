"""Weights in blocks, drawn from a seed."""

from __future__ import annotations

import numpy as np
import torch

from zellige.cuda.operators.block_product import ROWS, STEP
from zellige.cuda.tiling.compressed_blocks import compressed
from zellige.cuda.tiling.convolution_tiles import ConvolutionTiles, Window, cut_convolution
from zellige.cuda.tiling.device_tiles import DeviceTiles
from zellige.cuda.tiling.paired_blocks import paired

ROWS_OF = {"plain": ROWS, "2:4": ROWS, "paired": ROWS // 2}
"""Forms of blocks that the kernels know, and the rows of a block."""


def random_blocks(rows: int, columns: int, density: float, dropped: float, dtype: torch.dtype, seed: int, step: int = 64,
                  two_four: bool = False, height: int = ROWS) -> torch.Tensor:
    """A weight in blocks of ``height`` × ``step``, some rows dropped, so that tiles are of rows that don't lie together; 2:4 if
    asked."""
    generator = np.random.default_rng(seed)
    grid = generator.random((-(-rows // height), -(-columns // step))) < density
    kept = np.flatnonzero(generator.random(rows) >= dropped)
    mask = np.zeros((rows, columns))
    mask[kept] = np.kron(grid, np.ones((height, step)))[:len(kept), :columns]
    if two_four:
        order = generator.random((rows, -(-columns // 4), 4)).argsort(2).argsort(2)
        mask[(order >= 2).reshape(rows, -1)[:, :columns]] = 0
    return torch.from_numpy(mask * generator.standard_normal(mask.shape)).to(dtype)


def filters_in(form: str, weight: torch.Tensor, window: Window) -> ConvolutionTiles:
    """A convolution's weight in blocks of a form."""
    made = {"2:4": compressed, "paired": paired}.get(form, lambda tiles: tiles)
    cut = cut_convolution(weight, window, ROWS_OF[form], STEP, STEP)
    return ConvolutionTiles.of(made(DeviceTiles.upload(cut, "cpu", weight.dtype)), weight.shape[1], window)
