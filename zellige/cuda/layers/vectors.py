"""The way *vectors* of a linear layer: tiles that are 2:4 inside, through the sparse tensor cores.

The kernels of ``operators/tile_vector_wise.py`` take activations features × tokens and give them so; a layer has tokens × features,
and what is transposed before and after counts in the race.
"""

from __future__ import annotations

import torch

from zellige.cuda.operators import tile_vector_wise
from zellige.cuda.tiling.tiles import Tiles
from zellige.cuda.tiling.two_four import ROWS, STEP
from zellige.cuda.tiling.vector_tiles import VectorTiles, least_work, vector_tiles
from zellige.errors import InputError

VECTORS = "vectors"

CAPABILITY = 80
"""Of the first GPUs with sparse tensor cores."""

WORTH = 0.75
"""At most this share of the multiplications that tiles of single columns take is worth timing: 2:4 gathers as many columns."""


def packed(weight: torch.Tensor, single: Tiles | None, tile: int, step: int, capability: int) -> VectorTiles | None:
    """The weight as 2:4 tiles, on its device, if its zeros allow that and it promises a gain.

    ``single``: the weight in tiles of single columns.
    """
    if single is None or capability < CAPABILITY or (tile, step) != (ROWS, STEP):
        return None
    limit = WORTH * min(1.0, single.work)
    if least_work(weight) > limit:
        return None
    try:
        tiles = vector_tiles(weight)
    except InputError:  # it has no 2:4
        return None
    return tiles.to(weight.device) if tiles.density <= limit else None


def work(tiles: VectorTiles) -> tuple[int, ...]:
    """What the time of a product depends on: the steps of each tile."""
    return tuple(tiles.starts.diff().tolist())


def vector_product(tiles: VectorTiles, x: torch.Tensor, bias: torch.Tensor | None = None,
                   residual: torch.Tensor | None = None) -> torch.Tensor:
    """Tokens × rows, from tokens × columns."""
    addend = None if residual is None else residual.T.contiguous()
    return tile_vector_wise.multiply(tiles, x.T.contiguous(), bias, addend).T.contiguous()
