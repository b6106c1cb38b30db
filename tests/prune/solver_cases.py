"""Small layers to solve, and slow oracles by definition: explicit inputs, least squares, one removal after another."""

from fractions import Fraction
from typing import cast

import numpy as np
import torch

from zellige.patterns import Pattern, WeightShape
from zellige.prune.solvers.problem import DAMPING, Problem, as_rows, damped

EXACT = {"rtol": 1e-8, "atol": 1e-8}  # float64 throughout; condition numbers stay below 1e6


def problem(
    pattern: Pattern, shape: WeightShape, share: float | Fraction, seed: int, samples: int = 60, damping: float = DAMPING
) -> Problem:
    """A layer whose inputs are correlated, and not all of one size."""
    generator = torch.Generator().manual_seed(seed)
    inputs = shape.columns * shape.taps
    mixing = torch.randn(shape.groups, inputs, inputs, generator=generator, dtype=torch.float64)
    seen = mixing @ torch.randn(shape.groups, inputs, samples, generator=generator, dtype=torch.float64)
    weight = torch.randn(shape.dims, generator=generator, dtype=torch.float64)
    return Problem("layer", pattern, pattern.check(cast(float, share)), shape, weight, damped(seen @ seen.mT, damping))


def loss(of: Problem, weight: torch.Tensor) -> float:
    """The squared output error, damping included."""
    change = as_rows(weight - of.weight, of.shape)
    return float(((change @ of.hessian) * change).sum())


def least_squares(of: Problem, mask: torch.Tensor) -> torch.Tensor:
    """The best weight on a mask, row by row: ‖(ŵ − w)X‖² by numpy, X a root of the Hessian."""
    best = torch.zeros_like(of.rows)
    masks = as_rows(mask, of.shape)
    for group, hessian in enumerate(of.hessian):
        root = np.linalg.cholesky(hessian.numpy()).T  # its columns are inputs, its rows samples
        for row, weights in enumerate(of.rows[group]):
            kept = masks[group, row].numpy()
            solved = np.linalg.lstsq(root[:, kept], root @ weights.numpy(), rcond=None)[0]
            best[group, row, masks[group, row]] = torch.from_numpy(solved)
    return best.reshape(of.shape.dims)


def block_masks(pattern: Pattern, shape: WeightShape) -> list[torch.Tensor]:
    """Where each block lies, in order: bool tensors of the weight's shape."""
    blocks = pattern.blocks(shape)  # type: ignore[attr-defined]
    return [pattern.expand(torch.arange(blocks) == block, shape) for block in range(blocks)]  # type: ignore[attr-defined]


def greedy(of: Problem) -> torch.Tensor:
    """The mask of the exact greedy choice by brute force: what a block costs is found by fitting the weight without it."""
    blocks = block_masks(of.pattern, of.shape)
    mask = torch.ones(of.shape.dims, dtype=torch.bool)
    for _ in range(int(Fraction(of.share) * len(blocks))):
        left = [block for block in blocks if bool(mask[block].all())]
        before = loss(of, least_squares(of, mask))
        costs = [(loss(of, least_squares(of, mask & ~block)) - before) / int(block.sum()) for block in left]
        mask = mask & ~left[int(np.argmin(costs))]
    return mask
