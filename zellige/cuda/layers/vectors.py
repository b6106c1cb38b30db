"""The way *vectors* of a linear layer: tiles that are 2:4 inside, through the sparse tensor cores.

The kernels of ``operators/tile_vector_wise.py`` take activations features × tokens and give them so; a layer has tokens × features,
and what is transposed before and after counts in the race.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from zellige.cuda.operators import tile_vector_wise
from zellige.cuda.tiling.two_four import ROWS, STEP
from zellige.cuda.tiling.vector_tiles import VectorTiles, least_work, vector_tiles
from zellige.errors import InputError

VECTORS = "vectors"

CAPABILITY = 80
"""Of the first GPUs with sparse tensor cores."""

WORTH = 0.75
"""Of the multiplications of any other way: what takes more is not timed, since its kernel gathers as many columns."""


def promising(weight: torch.Tensor, least: float, tile: int, step: int, capability: int) -> bool:
    """Whether 2:4 tiles of a weight may be worth timing, before they are looked for, which takes seconds.

    ``least``: the share of the dense multiplications that another way takes at least.
    """
    return capability >= CAPABILITY and (tile, step) == (ROWS, STEP) and least_work(weight) <= WORTH * least


def packed(weight: torch.Tensor, least: float) -> VectorTiles | None:
    """The weight as 2:4 tiles, on its device, if its zeros allow that and it is worth timing."""
    try:
        tiles = vector_tiles(weight)
    except InputError:  # it has no 2:4
        return None
    return tiles.to(weight.device) if tiles.density <= WORTH * least else None


def digest_of_zeros(weight: torch.Tensor) -> str:
    """What 2:4 tiles, and so their time, depend on."""
    return hashlib.sha256(np.packbits((weight != 0).cpu().numpy()).tobytes()).hexdigest()[:16]


def vector_product(tiles: VectorTiles, x: torch.Tensor, bias: torch.Tensor | None = None,
                   residual: torch.Tensor | None = None) -> torch.Tensor:
    """Tokens × rows, from tokens × columns."""
    addend = None if residual is None else residual.T.contiguous()
    return tile_vector_wise.multiply(tiles, x.T.contiguous(), bias, addend).T.contiguous()
