"""Blocks of 128 rows × 64 columns that are 2:4 inside, with the half that counts stored.

Of each four columns that stand side by side, from multiples of four on, every row keeps two at most: what
``zl.BlockVectorWise(128, 64, 2, 4)`` leaves, and any weight that is 2:4 as a whole. A step's block becomes one image of 9216
bytes, as ``two_four.py`` lays it out for the sparse tensor cores: values and the places that they had. Seen as numbers of 16 bits
these are 128 rows of 36, by which kernels and operators know such tiles.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from zellige.cuda.tiling import two_four
from zellige.cuda.tiling.device_tiles import DeviceTiles
from zellige.cuda.tiling.tiles import Tiles
from zellige.cuda.tiling.two_four import IMAGE_BYTES, ROWS, STEP
from zellige.errors import InputError

WIDTH = IMAGE_BYTES // ROWS // 2
"""16-bit numbers to a row of a block."""

SHARE = 0.5
"""Of the multiplications of the same blocks, uncompressed."""


def compressible(tiles: Tiles) -> bool:
    """Whether the kernels of blocks can have such tiles compressed: whole blocks, 2:4 in every row.

    >>> from zellige.cuda.tiling.tiles import cut_tiles
    >>> weight = np.tile([1.0, 0.0, 0.0, 1.0], (128, 16))
    >>> compressible(cut_tiles(weight, 128, 64, 64)), compressible(cut_tiles(weight + np.eye(128, 64), 128, 64, 64))
    (True, False)
    """
    whole = (tiles.tile, tiles.step, tiles.unit) == (ROWS, STEP, STEP)
    return whole and not len(two_four.violations(tiles.values.reshape(-1, STEP)))


def compressed(weight: DeviceTiles) -> DeviceTiles:
    """The same tiles with values of steps · 128 × 36, on the same device.

    ``InputError`` where they are no blocks of 128 × 64 in bfloat16 or float16, or not 2:4.
    """
    if (weight.tile, weight.step, weight.unit) != (ROWS, STEP, STEP) or is_compressed(weight) or weight.halves is not None:
        raise InputError(f"blocks of {ROWS} × {STEP} are compressed, not tiles of {weight.tile} × {weight.unit} in steps of "
                         f"{weight.step} that hold values of {list(weight.values.shape)}")
    bits = weight.values.detach().view(torch.int16).cpu().numpy().view(np.uint16)
    lines = np.where(bits == 0x8000, np.uint16(0), bits).reshape(-1, ROWS, STEP).swapaxes(0, 1).reshape(ROWS, -1)  # −0 is a zero
    images = two_four.images(*two_four.compress(lines)) if lines.size else np.zeros((0, IMAGE_BYTES), np.uint8)
    numbers = torch.from_numpy(images.view(np.int16).reshape(-1, WIDTH))
    return replace(weight, values=numbers.to(weight.values.device).view(weight.values.dtype), transposed=None)


def expanded(weight: DeviceTiles) -> DeviceTiles:
    """The tiles that ``compressed`` made them of."""
    images = weight.values.view(torch.int16).cpu().numpy().view(np.uint8).reshape(-1, IMAGE_BYTES)
    lines = two_four.expand(*two_four.from_images(images)).reshape(ROWS, -1, STEP).swapaxes(0, 1)
    numbers = torch.from_numpy(np.ascontiguousarray(lines).view(np.int16).reshape(-1, STEP))
    return replace(weight, values=numbers.to(weight.values.device).view(weight.values.dtype))


def is_compressed(weight: DeviceTiles) -> bool:
    return weight.values.shape[1] == WIDTH


def step_of(values: torch.Tensor) -> int:
    """The columns of a step whose values these are."""
    return STEP if values.shape[1] == WIDTH else values.shape[1]
