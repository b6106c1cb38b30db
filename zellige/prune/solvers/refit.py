"""The best weights on a given mask: least squares, row by row, by the normal equations.

For a row w of the dense weight and the inputs S that its mask keeps, ŵ_S = w H_{:,S} (H_{S,S})⁻¹ makes (w − ŵ) H (w − ŵ)ᵀ least.
This is also what optimal brain surgeon's updates, one after another, end at (Hassibi and Stork, 1992): the order doesn't matter.
Rows of one mask are solved together.
"""

from __future__ import annotations

import torch

from zellige.prune.solvers.problem import Problem, Solution, as_rows


def refit(problem: Problem, mask: torch.Tensor) -> Solution:
    """The weight of least output error among those that are zero outside the mask. Rows that lose nothing stay as they are."""
    masks = as_rows(mask, problem.shape)
    rows = problem.rows.clone()
    for group, hessian in enumerate(problem.hessian):
        kinds, kind_of = torch.unique(masks[group], dim=0, return_inverse=True)
        for number, kept in enumerate(kinds):
            if not bool(kept.all()):
                alike = (kind_of == number).nonzero().squeeze(1)
                rows[group, alike] = _fitted(rows[group, alike], kept.nonzero().squeeze(1), hessian)
    return Solution(mask, rows.reshape(problem.shape.dims))


def _fitted(rows: torch.Tensor, kept: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    """Rows × inputs, refitted on these inputs."""
    fitted = torch.zeros_like(rows)
    if len(kept):
        toward = hessian[kept]
        factor = torch.linalg.cholesky(toward[:, kept])
        fitted[:, kept] = torch.cholesky_solve(toward @ rows.mT, factor).mT
    return fitted
