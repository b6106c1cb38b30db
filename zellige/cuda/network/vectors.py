"""Linear layers of a network as 2:4 tiles, for the sparse tensor cores: made once for each, since fours take seconds to find."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch

from zellige.cuda.layers.vectors import MOST_ON_HOPPER, packed, promising, worth_timing
from zellige.cuda.network.layers import Linear
from zellige.cuda.tiling.vector_tiles import VectorTiles, least_work, stacked

_FOUND: WeakKeyDictionary[Linear, dict[torch.dtype, VectorTiles | None]] = WeakKeyDictionary()


def two_four_tiles(layer: Linear, dtype: torch.dtype) -> VectorTiles | None:
    """The layer in tiles that are 2:4 inside, on the CPU: each of its stacked weights by itself, as it was pruned; None if the
    zeros of one don't allow that."""
    found = _FOUND.setdefault(layer, {})
    if dtype not in found:
        parts = [packed(weight) for weight in _weights(layer, dtype)]
        able = [part for part in parts if part is not None]
        found[dtype] = stacked(able) if len(able) == len(parts) else None
    return found[dtype]


def promising_tiles(layer: Linear, dtype: torch.dtype, least: float, tile: int, step: int, capability: int) -> VectorTiles | None:
    """The same, if they are worth timing where another way takes the share ``least`` of the dense multiplications.

    On every GPU they may take what they may on Hopper: a search of seconds for one layer is one of minutes for a network.
    """
    work = sum(least_work(weight) * weight.numel() for weight in _weights(layer, dtype)) / layer.weight.numel()
    if not promising(work, least, tile, step, capability, MOST_ON_HOPPER):
        return None
    tiles = two_four_tiles(layer, dtype)
    return tiles if worth_timing(tiles, least) else None


def _weights(layer: Linear, dtype: torch.dtype) -> list[torch.Tensor]:
    return [weight.detach().to("cpu", dtype) for weight in layer.weights]
