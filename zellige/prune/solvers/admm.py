"""ADMM: weights and mask are sought together (ALPS, Meng et al., arXiv 2406.07831). Needs nothing of a pattern but its masks.

Inputs are scaled so that the Hessian H has a diagonal of ones. A weight W of least output error and a weight D that keeps to the
pattern pull at one another, ever harder, W₀ being the dense weight: W ← (W₀H − V + ρD)(H + ρI)⁻¹, D ← what the pattern keeps of
W + V/ρ by its squares, V ← V + ρ(W − D). When the mask of D stays as it is, weights are fitted on it. The mask to start from is
fitted as well, and the better one is the answer: never worse than weights scored by |w| · ‖x‖ and then fitted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from zellige.patterns import Pattern, Scored
from zellige.prune.solvers.problem import Problem, Solution, Solver, as_rows, output_energy
from zellige.prune.solvers.refit import refit

PENALTY = 0.1           # ρ at the start
STEPS = 3               # between two looks at the mask, after which the penalty rises
MOST_STEPS = 300
RISES = ((0.1, 1.3), (0.005, 1.2), (0.0, 1.1))  # by what, where more than that share of the kept weights has moved


@dataclass(frozen=True)
class ADMM(Solver):
    """For any pattern: blocks, tiles, N:M, channels."""

    def __str__(self) -> str:
        return "admm"

    def refusal(self, pattern: Pattern) -> str | None:
        return None

    def solve(self, problem: Problem) -> Solution:
        scale = problem.hessian.diagonal(dim1=1, dim2=2).sqrt()
        hessian = problem.hessian / (scale[:, :, None] * scale[:, None, :])
        dense = problem.rows * scale[:, None, :]
        first = project(problem, dense)
        found = search(problem, dense, hessian, first)
        fitted = [refit(problem, mask) for mask in ((first,) if torch.equal(first, found) else (found, first))]
        return min(fitted, key=lambda solution: output_energy(
            as_rows(solution.weight, problem.shape) - problem.rows, problem.hessian))


def project(problem: Problem, rows: torch.Tensor) -> torch.Tensor:
    """The mask, in the weight's form, of what the pattern keeps of scaled weights: the nearest weights to them, where the pattern's
    choice is the best one there is."""
    squares = rows.square().reshape(problem.shape.dims)
    scored = Scored(problem.shape, lambda: squares, problem.layer)
    return problem.pattern.choose([scored], problem.share)[0]


def search(problem: Problem, dense: torch.Tensor, hessian: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mask at which the iteration, begun at another mask, comes to rest."""
    identity = torch.eye(hessian.shape[1], dtype=hessian.dtype)
    toward = dense @ hessian
    penalty, pull = PENALTY, torch.zeros_like(dense)
    kept = dense * as_rows(mask, problem.shape)
    factor = torch.linalg.cholesky(hessian + penalty * identity)
    seen = mask
    for step in range(1, MOST_STEPS + 1):
        free = torch.cholesky_solve((toward - pull + penalty * kept).mT, factor).mT
        wanted = free + pull / penalty
        mask = project(problem, wanted)
        kept = wanted * as_rows(mask, problem.shape)
        pull += penalty * (free - kept)
        if step % STEPS == 0:
            moved = int((mask & ~seen).sum()) / int(mask.sum())
            if moved == 0:
                break
            penalty *= next(rise for share, rise in RISES if moved > share)
            factor = torch.linalg.cholesky(hessian + penalty * identity)
            seen = mask
    return mask
