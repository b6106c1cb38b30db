"""Optimal brain surgeon over blocks: the block goes whose loss the rest can make up for best, and what stays makes up for it.

With P = H⁻¹ over the inputs that are left, removing the inputs q of rows w costs w_q (P_qq)⁻¹ w_qᵀ and changes w by
−w_q (P_qq)⁻¹ P_q:, where P_q: are the rows q of P; then P loses P_:q (P_qq)⁻¹ P_q: (Hassibi and Stork, 1992; of groups: Frantar and
Alistarh, arXiv 2208.11580). Rows of a band lose the same inputs, so a band has one P, its own after its first removal. Bands
don't touch one another's rows: each is followed by itself, and the greedy choice over the layer, always the block of least cost,
takes the beginnings of their ways. The mask being known, weights are fitted at once: that is where the updates end.

P is never updated as a whole. A removal takes VᵀV from it, V with the rows of a group; all V stand in one factor, and of P only the
rows of the next removal and the blocks on the diagonal are made. That is a block Cholesky factorisation of H⁻¹ which chooses its
pivots: inputs³ / 3 multiplications and additions for each band that is followed to its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from zellige.patterns import Channel, Partition, Pattern
from zellige.patterns.ranking import lowest
from zellige.patterns.shares import floor_share
from zellige.prune.solvers.groups import Groups, as_blocks
from zellige.prune.solvers.problem import Problem, Solution, Solver, inverse
from zellige.prune.solvers.refit import refit

TOGETHER = 1 << 22   # numbers in the factors of the bands that a thread follows together
STILL_FULL = 0.8     # share of groups still there below which what has gone is dropped from the arrays


@dataclass(frozen=True)
class OBS(Solver):
    """Exact block-OBS: for blocks of any size, single weights and channels. Greedy, each step exact.

    Costs inputs³ for each band of rows: single weights of large layers take long, where ``FixedOrder`` doesn't.
    """

    def __str__(self) -> str:
        return "obs"

    def refusal(self, pattern: Pattern) -> str | None:
        if isinstance(pattern, Channel) or as_blocks(pattern) is not None:
            return None
        return "it removes blocks one by one, and here one is not free to go without others; take solver 'admm'"

    def solve(self, problem: Problem) -> Solution:
        if isinstance(problem.pattern, Channel):
            costs = ((problem.rows @ problem.hessian) * problem.rows).sum(2).reshape(-1, 1)
            order = torch.zeros_like(costs, dtype=torch.long)
        else:
            order, costs = ways(problem)
        assert isinstance(problem.pattern, Partition)
        stay = staying(order, costs, floor_share(problem.share, costs.numel()))
        return refit(problem, problem.pattern.expand(stay.flatten(), problem.shape))


def staying(order: torch.Tensor, costs: torch.Tensor, removed: int) -> torch.Tensor:
    """Which blocks stay if that many go, bands × groups, by the ways of the bands.

    Of several ways the one with the least next cost goes on. What follows a higher cost therefore goes right after it: a step
    counts with the highest cost up to there.
    """
    gone = lowest(costs.cummax(1).values.flatten(), removed).reshape(costs.shape)
    return torch.ones_like(gone).scatter_(1, order, ~gone)


def ways(problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    """For the bands of all groups in turn: in which order they lose their groups of inputs, and what each costs per weight of
    the block: both bands × groups. Only ways that nobody takes break off: their last costs are infinite."""
    block = as_blocks(problem.pattern)
    assert block is not None
    groups = Groups.of(block, problem.shape)
    together = max(1, TOGETHER // len(groups.order) ** 2)
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    removed = floor_share(problem.share, problem.shape.groups * groups.sizes().numel())
    enough = torch.inf
    for rows, hessian in zip(problem.rows, problem.hessian, strict=True):
        inverted = inverse(groups.square(hessian)).unflatten(1, groups.inputs.shape).unflatten(0, groups.inputs.shape)
        pieces = list(zip(groups.banded(rows).split(together), groups.sizes().split(together), strict=True))
        with _one_thread_each() as (pool, threads):
            for start in range(0, len(pieces), threads):
                tasks = [pool.submit(_ways, banded, inverted, sizes, enough) for banded, sizes in pieces[start:start + threads]]
                found += [task.result() for task in tasks]
                known = torch.cat([costs.cummax(1).values.flatten() for _, costs in found])
                if 0 < removed <= int(known.isfinite().sum()):
                    enough = float(known.kthvalue(removed).values)
    return torch.cat([order for order, _ in found]), torch.cat([costs for _, costs in found])


@contextmanager
def _one_thread_each() -> Iterator[tuple[Executor, int]]:
    """As many threads as PyTorch has, and how many, each of which computes by itself: a step is too small to be shared out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield pool, threads
    finally:
        torch.set_num_threads(threads)


def _ways(rows: torch.Tensor, inverted: torch.Tensor, sizes: torch.Tensor, enough: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The ways of some bands (bands × height × groups × width): up to where all of them have cost more than ``enough``."""
    count = rows.shape[2]
    left = _Left(rows, inverted, sizes)
    order, costs = left.there.clone(), torch.full((len(rows), count), torch.inf, dtype=rows.dtype)
    for step in range(count):
        order[:, step], costs[:, step] = left.lose()
        if bool((costs.cummax(1).values[:, step] > enough).all()):
            break
    order[:, step + 1:] = left.there[~left.gone].reshape(len(rows), -1)
    return order, costs


class _Left:
    """What is left of some bands on their way, and of the inverse that each of them has by now what the next step needs.

    ``there`` (bands × groups) says which groups the arrays hold, ``gone`` which of these have gone. They are dropped from time
    to time; until then the identity stands in for their blocks on the diagonal.
    """

    def __init__(self, rows: torch.Tensor, inverted: torch.Tensor, sizes: torch.Tensor) -> None:
        bands, _, count, width = rows.shape
        self.inverted, self.sizes = inverted, sizes
        self.rows = rows.transpose(1, 2).clone()  # bands × groups × height × width
        self.diagonal = inverted.diagonal(dim1=0, dim2=2).permute(2, 0, 1).expand(bands, -1, -1, -1).clone()
        self.factor = rows.new_empty(bands, count * width, count, width)  # of which ``known`` rows are there: those of all V
        self.known = 0
        self.there = torch.arange(count).expand(bands, count).clone()
        self.gone = torch.zeros(bands, count, dtype=torch.bool)
        self.every = torch.arange(bands)

    def lose(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Every band loses the group that costs it least: which one, and its cost per weight."""
        if int(self.gone[0].sum()) > (1 - STILL_FULL) * self.gone.shape[1]:
            self._drop()
        roots = torch.linalg.cholesky(self.diagonal)
        solved = torch.linalg.solve_triangular(roots, self.rows.mT, upper=False)
        losses = solved.square().sum((2, 3)) / self.sizes.gather(1, self.there)
        costs, least = losses.masked_fill(self.gone, torch.inf).min(1)
        at = self.every, least
        vectors = self._vectors(least, roots[at])
        self.rows -= solved[at].mT[:, None] @ vectors
        self.diagonal -= vectors.mT @ vectors
        self.gone[at] = True
        self.diagonal[self.gone] = torch.eye(self.diagonal.shape[3], dtype=self.diagonal.dtype)
        return self.there[at], costs

    def _vectors(self, least: torch.Tensor, roots: torch.Tensor) -> torch.Tensor:
        """V of one group of each band, bands × groups × width × width: root⁻¹ of its rows of the inverse as it is by now."""
        width = self.diagonal.shape[3]
        columns = self.there[:, None, :, None].expand(-1, width, -1, width)
        wanted = self.inverted[self.there[self.every, least]].gather(2, columns).flatten(2)
        before = self.factor[:, :self.known]
        wanted -= before[self.every, :, least].mT @ before.flatten(2)
        new = torch.linalg.solve_triangular(roots, wanted, upper=False).unflatten(2, (-1, width))
        self.factor[:, self.known:self.known + width] = new
        self.known += width
        return new.transpose(1, 2)

    def _drop(self) -> None:
        """Leaves groups that have gone out of all arrays."""
        left = (~self.gone).nonzero()[:, 1].reshape(len(self.gone), -1)
        self.there, self.gone = self.there.gather(1, left), torch.zeros_like(left, dtype=torch.bool)
        self.rows, self.diagonal = self.rows[self.every[:, None], left], self.diagonal[self.every[:, None], left]
        smaller = self.factor.new_empty(*self.factor.shape[:2], left.shape[1], self.factor.shape[3])
        for old, new, groups in zip(self.factor, smaller, left, strict=True):
            torch.index_select(old[:self.known], 1, groups, out=new[:self.known])
        self.factor = smaller
