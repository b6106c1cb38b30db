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
from zellige.cuda.tiling.vector_tiles import VectorTiles, vector_tiles
from zellige.errors import InputError

VECTORS = "vectors"

CAPABILITY = 80
"""Of the first GPUs with sparse tensor cores."""

WORTH = 0.75
"""Of the multiplications of any other way: what takes more is not timed, since its kernel gathers as many columns."""


HOPPER = 90
MOST_ON_HOPPER = 0.4
"""Of the dense multiplications. The kernel gathers twice as many columns and waits for that: with half of them it was 1.6 times as
fast as the dense product (docs/gpu.md, *Measured*), so with four fifths it would be as fast."""


def promising(work: float, least: float, tile: int, step: int, capability: int, most: float = 1.0) -> bool:
    """Whether 2:4 tiles may be worth timing, before they are looked for, which takes seconds.

    As shares of the dense multiplications, ``work`` is what 2:4 tiles take at least (``least_work``), ``least`` what another way
    does, ``most`` what they may take.
    """
    most = min(most, MOST_ON_HOPPER if capability >= HOPPER else 1.0, WORTH * least)
    return capability >= CAPABILITY and (tile, step) == (ROWS, STEP) and work <= most


def packed(weight: torch.Tensor) -> VectorTiles | None:
    """The weight as 2:4 tiles, on its device, if its zeros allow that."""
    try:
        return vector_tiles(weight).to(weight.device)
    except InputError:  # it has no 2:4
        return None


def worth_timing(tiles: VectorTiles | None, least: float) -> bool:
    """Whether there are tiles, and these leave clearly less to do than another way does."""
    return tiles is not None and tiles.density <= WORTH * least


def digest_of_zeros(weight: torch.Tensor) -> str:
    """What 2:4 tiles, and so their time, depend on."""
    return hashlib.sha256(np.packbits((weight != 0).cpu().numpy()).tobytes()).hexdigest()[:16]


def vector_product(tiles: VectorTiles, x: torch.Tensor, bias: torch.Tensor | None = None,
                   residual: torch.Tensor | None = None) -> torch.Tensor:
    """Tokens × rows, from tokens × columns."""
    addend = None if residual is None else residual.T.contiguous()
    return tile_vector_wise.multiply(tiles, x.T.contiguous(), bias, addend).T.contiguous()
