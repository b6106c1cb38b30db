"""Inputs in one fixed order, the same for all rows: what goes of an input is made up for by those behind it (SparseGPT, Frantar
and Alistarh, arXiv 2301.00774).

With H⁻¹ = UᵀU, U upper triangular, the rows of U are what optimal brain surgeon needs at each input in turn, the inputs before it
being settled: the error of a weight that goes is w / U_cc, and the inputs behind lose that times U_c:. One U serves every row, so a
layer costs inputs² × (rows + inputs), and not inputs³ for each band.

A block costs w_b ((UᵀU)_bb)⁻¹ w_bᵀ, U cut to the run of columns that holds it: its exact cost once earlier columns are settled. How
many blocks go of a run is decided beforehand, by the costs of all of them; which ones, when the run is reached, and the weights
have changed. N:M and V:N:M decide as they always do, on w² / U_cc², when their columns are reached.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from zellige.patterns import Partition, Pattern, WeightShape
from zellige.patterns.fixed_share import FixedShare
from zellige.patterns.nm import NM
from zellige.patterns.ranking import lowest
from zellige.prune.solvers.groups import Groups, as_blocks
from zellige.prune.solvers.problem import Problem, Solution, Solver, inverse

WINDOW = 128  # inputs after which the rest is brought up to date, in one product


@dataclass(frozen=True)
class FixedOrder(Solver):
    """The cheaper variant of OBS: for blocks of any size, single weights, N:M and V:N:M."""

    def __str__(self) -> str:
        return "fixed-order"

    def refusal(self, pattern: Pattern) -> str | None:
        if isinstance(pattern, FixedShare) or as_blocks(pattern) is not None:
            return None
        return "it goes through a weight column by column, and this pattern's choices don't; take solver 'admm'"

    def solve(self, problem: Problem) -> Solution:
        factor = torch.linalg.cholesky(inverse(problem.hessian), upper=True)
        chooser = _Blocks(problem, factor) if isinstance(problem.pattern, Partition) else _FewOfMany(problem, factor)
        return settle(problem, factor, chooser)


class _Chooser:
    """Says of a run of columns what stays, when it is reached."""

    columns: int

    def __init__(self, problem: Problem, factor: torch.Tensor) -> None:
        self.problem, self.factor = problem, factor

    def stays(self, rows: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """A mask over groups × rows × the inputs from start to stop."""
        raise NotImplementedError

    def part(self, inputs: int) -> WeightShape:
        """The shape of a weight of some of the inputs."""
        shape = self.problem.shape
        return WeightShape((shape.rows, inputs // shape.taps, shape.taps), shape.groups)


class _FewOfMany(_Chooser):
    """N:M and V:N:M: groups of m columns decide for themselves; where neighbours are outputs, single columns do."""

    def __init__(self, problem: Problem, factor: torch.Tensor) -> None:
        super().__init__(problem, factor)
        pattern = problem.pattern
        assert isinstance(pattern, FixedShare)
        self.pattern = pattern
        self.columns = 1 if isinstance(pattern, NM) and pattern.along == "outputs" else pattern.m

    def stays(self, rows: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        pivots = self.factor.diagonal(dim1=1, dim2=2)[:, None, start:stop]
        part = self.part(stop - start)
        return self.pattern.mask_of((rows / pivots).square().reshape(part.dims), part).reshape(rows.shape)


class _Blocks(_Chooser):
    """Blocks: so many of each run of columns, those of least cost."""

    def __init__(self, problem: Problem, factor: torch.Tensor) -> None:
        super().__init__(problem, factor)
        pattern, block = problem.pattern, as_blocks(problem.pattern)
        assert isinstance(pattern, Partition) and block is not None
        self.block, self.columns = block, min(block.columns, problem.shape.columns)
        width = self.columns * problem.shape.taps
        costs = [self._costs(part, at * width) for at, part in enumerate(problem.rows.split(width, dim=2))]
        stay = pattern.staying([torch.stack(costs, 2).flatten()], problem.share)
        self.removed = (~stay).reshape(-1, len(costs), costs[0].shape[2]).sum((0, 2)).tolist()
        self.width = width

    def stays(self, rows: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        costs = self._costs(rows, start)
        kept = ~lowest(costs.flatten(), self.removed[start // self.width])
        return self.block.expand(kept, self.part(stop - start)).reshape(rows.shape)

    def _costs(self, rows: torch.Tensor, start: int) -> torch.Tensor:
        """Per weight of a block, for the blocks of a run: groups × bands × taps (1 where they go together)."""
        own = self.factor[:, start:start + rows.shape[2], start:start + rows.shape[2]]
        groups = Groups.of(self.block, self.part(rows.shape[2]))
        costs = []
        for of_group, factor in zip(rows, own, strict=True):
            blocks = groups.square(factor.mT @ factor).unflatten(1, groups.inputs.shape).unflatten(0, groups.inputs.shape)
            roots = torch.linalg.cholesky(blocks.diagonal(dim1=0, dim2=2).permute(2, 0, 1))
            solved = torch.linalg.solve_triangular(roots, groups.banded(of_group).transpose(1, 2).mT, upper=False)
            costs.append(solved.square().sum((2, 3)) / groups.sizes())
        return torch.stack(costs)


def settle(problem: Problem, factor: torch.Tensor, chooser: _Chooser) -> Solution:
    """Goes through the inputs once; ``chooser`` says at every run of columns what stays of it."""
    rows = problem.rows.clone()
    stays = torch.ones_like(rows, dtype=torch.bool)
    inputs, run = rows.shape[2], chooser.columns * problem.shape.taps
    window = max(1, WINDOW // run) * run
    for start in range(0, inputs, window):
        stop = min(start + window, inputs)
        errors = torch.zeros_like(rows[:, :, start:stop])
        for first in range(start, stop, run):
            last = min(first + run, inputs)
            stays[:, :, first:last] = chooser.stays(rows[:, :, first:last], first, last)
            for at in range(first, last):
                error = rows[:, :, at] * ~stays[:, :, at] / factor[:, None, at, at]
                errors[:, :, at - start] = error
                rows[:, :, at:stop] -= error[:, :, None] * factor[:, None, at, at:stop]
        rows[:, :, stop:] -= errors @ factor[:, start:stop, stop:]
    rows.masked_fill_(~stays, 0)
    return Solution(stays.reshape(problem.shape.dims), rows.reshape(problem.shape.dims))
