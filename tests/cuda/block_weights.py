"""Weights in blocks, drawn from a seed."""

from __future__ import annotations

import numpy as np
import torch

from zellige.cuda.operators.block_product import ROWS


def random_blocks(rows: int, columns: int, density: float, dropped: float, dtype: torch.dtype, seed: int, step: int = 64,
                  two_four: bool = False, height: int = ROWS) -> torch.Tensor:
    """A weight in blocks of ``height`` × ``step``, some rows dropped, so that tiles are of rows that don't lie together; 2:4 if asked."""
    generator = np.random.default_rng(seed)
    grid = generator.random((-(-rows // height), -(-columns // step))) < density
    kept = np.flatnonzero(generator.random(rows) >= dropped)
    mask = np.zeros((rows, columns))
    mask[kept] = np.kron(grid, np.ones((height, step)))[:len(kept), :columns]
    if two_four:
        order = generator.random((rows, -(-columns // 4), 4)).argsort(2).argsort(2)
        mask[(order >= 2).reshape(rows, -1)[:, :columns]] = 0
    return torch.from_numpy(mask * generator.standard_normal(mask.shape)).to(dtype)
