"""Sums that come out the same on every machine.

Which block goes must not depend on how many threads or vector lanes added up its score. A library's reduction promises
no order of additions; elementwise addition has none to choose. So a sum here is a fixed binary tree of elementwise
additions in float64.
"""

from __future__ import annotations

import torch

SLAB = 1 << 20  # weights summed at once: their float64 copies stay in a cache, and out of the way


def tree_sum(values: torch.Tensor, axis: int) -> torch.Tensor:
    """Sums a float64 tensor along ``axis``, which disappears; ``values`` is left as it was."""
    while (size := values.shape[axis]) > 1:
        upper = size // 2
        halves = values.narrow(axis, 0, upper) + values.narrow(axis, size - upper, upper)
        middle = values.narrow(axis, upper, size - 2 * upper)
        values = torch.cat((halves, middle), axis) if size % 2 else halves
    return values.squeeze(axis)


def row_sums(values: torch.Tensor) -> torch.Tensor:
    """Sums everything but the first axis, some rows at a time: float64."""
    rows = max(1, SLAB * len(values) // values.numel())
    return torch.cat([tree_sum(slab.flatten(1).double(), 1) for slab in values.split(rows)])
