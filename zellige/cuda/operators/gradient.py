"""The gradient of a weight in tiles, as an operator of PyTorch's: ``zellige::tile_gradient``.

Only what is kept has one: the product of dYᵀ and X is sampled, tile by tile. Where a weight has too few tiles to fill the chip, the
tokens are cut into parts, whose sums are added up in their order: the result depends on no order of arrival.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import pairwise

import numpy as np
import torch
import triton

from zellige.cuda.kernels.gradient import tile_gradient
from zellige.cuda.operators.plans import uploaded

WIDE = 128
"""Columns that a program takes; two steps of 64."""

TOKENS = 64
"""Tokens that a turn of its loop takes."""

STAGES = 3
FEWEST_TURNS = 8  # a part of fewer turns is mostly its own beginning and end
MOST_PARTS = 8


@torch.library.custom_op("zellige::tile_gradient", mutates_args=())
def gradient_of_values(dy: torch.Tensor, x: torch.Tensor, units: torch.Tensor, rows: torch.Tensor, starts: Sequence[int],
                       unit: int, step: int, x_features: bool) -> torch.Tensor:
    """dYᵀ · X where there are tiles, (steps · tile) × step like their values.

    ``dy``: rows × tokens; ``x``: tokens × columns, or columns × tokens with ``x_features``; the rest describes the tiles.
    """
    tile = rows.numel() // (len(starts) - 1)
    values = dy.new_empty(starts[-1] * tile, step)
    launch(dy, x, units, rows, tuple(starts), unit, x_features, values)
    return values


@gradient_of_values.register_fake
def _(dy: torch.Tensor, x: torch.Tensor, units: torch.Tensor, rows: torch.Tensor, starts: Sequence[int], unit: int, step: int,
      x_features: bool) -> torch.Tensor:
    return dy.new_empty(starts[-1] * (rows.numel() // (len(starts) - 1)), step)


def launch(dy: torch.Tensor, x: torch.Tensor, units: torch.Tensor, rows: torch.Tensor, starts: tuple[int, ...], unit: int,
           x_features: bool, values: torch.Tensor, wide: int = WIDE, stages: int = STAGES) -> None:
    """Write the gradient into ``values``. Nothing is checked."""
    tokens, columns = dy.shape[1], x.shape[0 if x_features else 1]
    if not len(values):
        return
    tile, step = rows.numel() // (len(starts) - 1), values.shape[1]
    wide = max(wide, step)
    chunks = chunks_on(starts, wide // step, dy.device)
    turns = triton.cdiv(tokens, TOKENS)
    parts = max(1, min(MOST_PARTS, turns // FEWEST_TURNS, _programs(dy.device) // len(chunks)))
    sums = values if parts == 1 else values.new_empty(parts, *values.shape, dtype=torch.float32)
    tile_gradient[(len(chunks), parts)](
        dy, x, units, rows, chunks, sums, tokens, columns, triton.cdiv(turns, parts), values.numel(),
        dy.stride(0), x.stride(0), TILE=tile, STEP=step, UNIT=unit, WIDE=wide, TOKENS=TOKENS, X_FEATURES=x_features,
        RAGGED=bool(columns % unit), num_warps=8 if tile * wide > 8192 else 4, num_stages=stages)
    if parts > 1:
        values.copy_(sums.sum(0))


@lru_cache
def _programs(device: torch.device) -> int:
    """How many should run at least."""
    return 2 * torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 16


def plan_ahead(starts: tuple[int, ...], step: int, device: torch.device) -> None:
    """Have the plan of all launches for these tiles on the device."""
    if starts[-1]:
        chunks_on(starts, max(WIDE, step) // step, device)


@cache
def chunks_on(starts: tuple[int, ...], together: int, device: torch.device) -> torch.Tensor:
    """The plan on the device."""
    return uploaded(plan_chunks(starts, together), device)


def plan_chunks(starts: Sequence[int], together: int) -> np.ndarray:
    """Chunks × (tile, first step, steps, first step of its tile): the steps of every tile, up to so many at a time; int32.

    >>> plan_chunks((0, 3, 3, 4), 2).tolist()
    [[0, 0, 2, 0], [0, 2, 1, 0], [2, 3, 1, 3]]
    """
    found = [(tile, first, min(together, end - first), begin) for tile, (begin, end) in enumerate(pairwise(starts))
             for first in range(begin, end, together)]
    return np.array(found, np.int32).reshape(-1, 4)
