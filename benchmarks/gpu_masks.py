"""Random masks with the structure that pruning gives, and how Zellige cuts a weight that has one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import torch

TILE = 128

Draw = Callable[[int, int, float, torch.Generator], torch.Tensor]
"""Rows, columns, sparsity, generator → what is kept, as bools."""


def columns_lost(rows: int, columns: int, share: float, uneven: bool, generator: torch.Generator) -> torch.Tensor:
    """Each tile of rows loses a share of its columns: all the same, or each keeps between half and 1.5 times as many."""
    tiles = -(-rows // TILE)
    kept = torch.full((tiles,), 1 - share)
    if uneven:
        kept *= torch.rand(tiles, generator=generator) + 0.5
        kept *= (1 - share) / kept.mean()
    counts = (kept.clamp(0, 1) * columns).round().int()
    ranks = torch.rand(tiles, columns, generator=generator).argsort(1).argsort(1)
    return (ranks < counts[:, None]).repeat_interleave(TILE, 0)[:rows]


def tile_wise(rows: int, columns: int, sparsity: float, generator: torch.Generator, uneven: bool = False) -> torch.Tensor:
    """Rows go, and in tiles of 128 of the rest columns go; each loses 1 − √(1 − s)."""
    share = 1 - math.sqrt(1 - sparsity)
    kept = torch.randperm(rows, generator=generator)[:round(rows * (1 - share))].sort().values
    mask = torch.zeros(rows, columns, dtype=torch.bool)
    mask[kept] = columns_lost(len(kept), columns, share, uneven, generator)
    return mask


def columns_only(rows: int, columns: int, sparsity: float, generator: torch.Generator, width: int = 1) -> torch.Tensor:
    """Tile-wise without rows that go: every tile of 128 rows loses columns, one by one or in runs of ``width``."""
    return columns_lost(rows, columns // width, sparsity, False, generator).repeat_interleave(width, 1)


def tile_wise_in_eights(rows: int, columns: int, sparsity: float, generator: torch.Generator) -> torch.Tensor:
    """Tile-wise where rows and columns go in eights that lie side by side: 16 bytes of what token-major activations are."""
    share = 1 - math.sqrt(1 - sparsity)
    eights, groups = rows // 8, columns // 8
    kept = torch.randperm(eights, generator=generator)[:max(1, round(eights * (1 - share)))].sort().values
    tiles = -(-len(kept) * 8 // TILE)
    ranks = torch.rand(tiles, groups, generator=generator).argsort(1).argsort(1)
    own = (ranks < max(1, round(groups * (1 - share)))).repeat_interleave(TILE // 8, 0)[:len(kept)]
    mask = torch.zeros(eights, groups, dtype=torch.bool)
    mask[kept] = own
    return mask.repeat_interleave(8, 0).repeat_interleave(8, 1)


def tile_vector_wise(rows: int, columns: int, sparsity: float, generator: torch.Generator) -> torch.Tensor:
    """Tile-wise, and of four columns that a tile keeps side by side each row keeps two: half of the sparsity's rest."""
    mask = tile_wise(rows, columns, 1 - 2 * (1 - sparsity), generator)
    kept = mask.any(1).nonzero().flatten()
    for start in range(0, len(kept), TILE):
        own = kept[start:start + TILE]
        left = mask[own[0]].nonzero().flatten()
        fours = -(-len(left) // 4)
        two = pairs(len(own), fours, generator)
        two[1::2] = ~two[:len(own) // 2 * 2:2]  # what a row drops its neighbour keeps, so that no column is empty
        mask[own[:, None], left] = two[:, :len(left)]
    return mask


def two_of_four(mask: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """What a row keeps if only two of each four neighbouring columns may stay."""
    rows, columns = mask.shape
    return mask & pairs(rows, -(-columns // 4), generator)[:, :columns]


PAIRS = torch.tensor([[place in pair for place in range(4)] for pair in combinations(range(4), 2)])


def pairs(rows: int, fours: int, generator: torch.Generator) -> torch.Tensor:
    """Two of each four, rows × 4 · fours, evenly drawn."""
    return PAIRS[torch.randint(len(PAIRS), (rows, fours), generator=generator)].flatten(1)


def tile_vector_wise_in_runs(rows: int, columns: int, sparsity: float, generator: torch.Generator, width: int) -> torch.Tensor:
    """Every tile of 128 rows loses columns in runs of ``width``, and keeps two of each four that are left."""
    return two_of_four(columns_only(rows, columns, 1 - 2 * (1 - sparsity), generator, width), generator)


def blocks(rows: int, columns: int, sparsity: float, generator: torch.Generator, size: int) -> torch.Tensor:
    """Square blocks, drawn evenly over the weight."""
    grid = (-(-rows // size), -(-columns // size))
    ranks = torch.rand(grid[0] * grid[1], generator=generator).argsort().argsort().view(grid)
    kept = ranks >= round(ranks.numel() * sparsity)
    return kept.repeat_interleave(size, 0).repeat_interleave(size, 1)[:rows, :columns]


def unstructured(rows: int, columns: int, sparsity: float, generator: torch.Generator) -> torch.Tensor:
    """Single weights, drawn evenly."""
    return torch.rand(rows, columns, generator=generator) >= sparsity


@dataclass(frozen=True)
class Mask:
    """How a weight is made sparse, and the ways to cut it: rows of a tile, columns of a group and of a step."""

    draw: Draw
    cuts: tuple[tuple[int, int, int], ...] = ()


MASKS = {
    "tw2-128": Mask(tile_wise, ((128, 1, 64),)),
    "tw1-128": Mask(columns_only, ((128, 1, 64),)),
    "tw1-128 by 8": Mask(partial(columns_only, width=8), ((128, 8, 64),)),
    "tw1-128 by 64": Mask(partial(columns_only, width=64), ((128, 64, 64),)),
    "block-128": Mask(partial(blocks, size=128), ((128, 128, 64),)),
    "block-64": Mask(partial(blocks, size=64), ((64, 64, 64),)),
    "block-32": Mask(partial(blocks, size=32), ((32, 32, 32), (64, 32, 64))),
    "tvw-128": Mask(tile_vector_wise, ((128, 1, 64),)),
    "tvw-128 by 64": Mask(partial(tile_vector_wise_in_runs, width=64), ((128, 64, 64),)),
    "tw2-128 uneven": Mask(partial(tile_wise, uneven=True), ((128, 1, 64),)),
    "tw2-128 in eights": Mask(tile_wise_in_eights, ((128, 8, 64),)),
    "unstructured": Mask(unstructured),
}
