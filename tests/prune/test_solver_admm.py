"""ADMM: keeps to every pattern, fits its mask exactly, and is never worse than what it starts from."""

from itertools import combinations

import pytest
import torch
from every_pattern import one_of_each, sparsity_for
from hypothesis import given
from hypothesis import strategies as st
from solver_cases import EXACT, block_masks, least_squares, loss, problem

from zellige.patterns import Block, BlockVectorWise, Pattern, TileElementWise, TileVectorWise, WeightShape
from zellige.patterns.partition import Partition
from zellige.prune.solvers import ADMM
from zellige.prune.solvers.admm import project
from zellige.prune.solvers.problem import Problem
from zellige.prune.solvers.refit import refit

SHAPES = st.sampled_from([WeightShape((8, 8)), WeightShape((8, 10, 2)), WeightShape((16, 8, 1, 2), 2), WeightShape((9, 7))])


def start(of: Problem) -> torch.Tensor:
    """The mask by |w| · ‖x‖."""
    diagonal = of.hessian.diagonal(dim1=1, dim2=2)[:, None]
    return project(of, of.rows * diagonal.sqrt())


@given(st.sampled_from(one_of_each()), SHAPES, st.sampled_from([0.3, 0.5, 0.75]), st.integers(0, 10_000))
def test_every_pattern(pattern: Pattern, shape: WeightShape, asked: float, seed: int) -> None:
    of = problem(pattern, shape, sparsity_for(pattern, asked), seed)
    solution = ADMM().solve(of)
    torch.testing.assert_close(solution.weight, least_squares(of, solution.mask), **EXACT)
    first = start(of)
    assert loss(of, solution.weight) <= loss(of, refit(of, first).weight) * (1 + 1e-12)
    assert loss(of, solution.weight) <= loss(of, of.weight * first) * (1 + 1e-12)
    if not isinstance(pattern, (TileElementWise, TileVectorWise)):
        assert pattern.verify(solution.mask, shape.groups).clean
    diagonal = of.hessian.diagonal(dim1=1, dim2=2)[:, None]
    scores = (of.rows.square() * diagonal).reshape(shape.dims)
    usual = pattern.mask(scores, float(of.share), shape.groups)
    blocks = pattern if isinstance(pattern, Partition) else pattern.block if isinstance(pattern, BlockVectorWise) else None
    if blocks is not None:  # those at the edges are smaller, so of weights more or fewer may be left
        found, wanted = (int((blocks.block_scores(mask, shape.groups) > 0).sum()) for mask in (solution.mask, usual))
        assert found == wanted
    else:
        assert int(solution.mask.sum()) == pytest.approx(int(usual.sum()), abs=0.15 * shape.weights)  # by the scores, of tiles


def test_it_finds_better_masks_than_its_start() -> None:
    gains = []
    for seed in range(8):
        of = problem(Block(4, 4), WeightShape((16, 32)), 0.5, seed, samples=200)
        gains.append(loss(of, ADMM().solve(of).weight) / loss(of, refit(of, start(of)).weight))
    assert max(gains) <= 1 + 1e-12 and sum(gains) / len(gains) < 0.9


def test_near_the_best_mask_there_is() -> None:
    """Over 20 layers of 6 blocks, half of which go, the loss is on average within 30 % of what trying all masks finds."""
    shape, ratios = WeightShape((4, 6)), []
    blocks = block_masks(Block(2, 2), shape)
    for seed in range(20):
        of = problem(Block(2, 2), shape, 0.5, seed)
        best = min(loss(of, least_squares(of, ~torch.stack(few).any(0))) for few in combinations(blocks, 3))
        ratios.append(loss(of, ADMM().solve(of).weight) / best)
    assert min(ratios) >= 1 - 1e-9 and sum(ratios) / len(ratios) < 1.3


def test_without_correlation_the_start_is_the_best() -> None:
    of = problem(Block(2, 2), WeightShape((4, 8)), 0.5, seed=1)
    alone = Problem("", of.pattern, of.share, of.shape, of.weight, torch.diag(torch.arange(1.0, 9).double())[None])
    solution = ADMM().solve(alone)
    assert torch.equal(solution.mask, start(alone))
    torch.testing.assert_close(solution.weight, of.weight * solution.mask, rtol=1e-12, atol=1e-14)
