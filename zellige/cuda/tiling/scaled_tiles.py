"""Tiles in numbers of eight bits: e4m3 (OCP, *8-bit floating point specification*), and a scale for every row of the weight.

e4m3 has a sign, four bits of exponent and three of mantissa: ±448 at most, steps of 2⁻⁹ about zero, no infinity. What was largest
in a row becomes 448, and the scale says what that stands for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zellige.cuda.tiling.device_tiles import DeviceTiles
from zellige.errors import CompileError

E4M3 = torch.float8_e4m3fn
LARGEST = torch.finfo(E4M3).max


@dataclass(frozen=True)
class ScaledTiles:
    """W in tiles, as ``scales[row]`` (float32, one for every row of the weight) · ``tiles.values`` (e4m3)."""

    tiles: DeviceTiles
    scales: Tensor


def quantize(weight: DeviceTiles) -> ScaledTiles:
    """Tiles in e4m3, from tiles in bfloat16 or float16: each number ÷ its row's scale, rounded to the nearest.

    A scale is the largest magnitude of a row ÷ 448, and 1 for a row of zeros. ``CompileError`` where the weight has infinities or
    NaN: one of them would take its row along. The kernel wants tiles of 128 rows in steps and groups of 128 columns.

    >>> import numpy as np
    >>> from zellige.cuda.tiling.tiles import cut_tiles
    >>> weight = np.zeros((16, 16), np.float32)
    >>> weight[3, 4:6] = 3.5, -0.5
    >>> found = quantize(DeviceTiles.upload(cut_tiles(weight, 16, 16, 16), "cpu", torch.bfloat16))
    >>> found.scales[:4].tolist(), found.tiles.values[0, 4:6].tolist()  # 3.5 = 448 ÷ 128
    ([1.0, 1.0, 1.0, 0.0078125], [448.0, -64.0])
    """
    values = weight.values.float()
    if not values.isfinite().all():
        raise CompileError(f"a weight of {list(weight.shape)} has numbers that are not finite, which no scale brings to e4m3")
    steps = torch.tensor(weight.starts, device=values.device).diff()
    lines = weight.rows.view(-1, weight.tile).repeat_interleave(steps, 0).flatten().long() + 1  # 0: a row that a tile lacks
    largest = values.new_zeros(weight.shape[0] + 1).scatter_reduce(0, lines, values.abs().amax(1), "amax")
    scales = scale_for(largest)
    scaled = (values / scales[lines, None]).clamp(-LARGEST, LARGEST).to(E4M3)
    return ScaledTiles(replace(weight, values=scaled, transposed=None), scales[1:].contiguous())


def scale_for(largest: Tensor) -> Tensor:
    """The scale, in float32, by which numbers of this largest magnitude just fit e4m3; 1 where all are zero."""
    scale = (largest.float() / LARGEST).clamp_min(torch.finfo(torch.float32).tiny)
    return torch.where(largest == 0, torch.ones_like(scale), scale)
