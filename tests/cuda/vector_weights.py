"""Weights that are tile-vector-wise, drawn from a seed, and what they multiply."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from zellige.cuda.tiling.two_four import ROWS

FUNCTIONS = {None: lambda y: y, "relu": torch.relu, "gelu": functional.gelu, "silu": functional.silu}


def random_weight(
    n: int, k: int, dtype: torch.dtype, seed: int, dropped: float = 0.25, kept: float = 0.5, two_four: bool = True,
) -> tuple[Tensor, list[np.ndarray]]:  # fmt: skip
    """A weight whose tiles keep about ``kept`` of their columns, 2:4 or full, in an order drawn too; and those lists."""
    random = np.random.default_rng(seed)
    weight = np.zeros((n, k))
    surviving = np.flatnonzero(random.random(n) >= dropped)
    columns = []
    for first in range(0, len(surviving), ROWS):
        rows = surviving[first : first + ROWS]
        order = random.permutation(k)[: max(1, random.binomial(k, kept))]
        groups = random.standard_normal((len(rows), -(-len(order) // 4), 4))
        keep = np.argsort(random.random(groups.shape), axis=-1) < (2 if two_four else 4)
        values = np.where(keep, np.where(abs(groups) < 0.1, 0.5, groups), 0).reshape(len(rows), -1)[:, : len(order)]
        values[:, 0] = np.where(values[:, :4].any(1), values[:, 0], 1.0)  # every surviving row has a number
        weight[np.ix_(rows, order)] = values
        columns.append(order)
    return torch.from_numpy(weight).to(dtype), columns


def reference(weight: Tensor, x: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str | None) -> Tensor:
    y = weight.double() @ x.double()
    if bias is not None:
        y = y + bias.double()[:, None]
    if residual is not None:
        y = y + residual.double()
    return FUNCTIONS[activation](y)


def relative_error(y: Tensor, expected: Tensor) -> float:
    return float((y.double() - expected).norm() / expected.norm().clamp_min(1e-30))
