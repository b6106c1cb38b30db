"""The fixed order against optimal brain surgeon done slowly: at every input, the inverse of what is left is made anew."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from solver_cases import EXACT, least_squares, loss, problem

import zellige.prune.solvers.fixed_order as fixed_order
from zellige.patterns import NM, VNM, Block, Channel, Pattern, TileVectorWise, TileWise, Unstructured, WeightShape
from zellige.patterns.fixed_share import FixedShare
from zellige.prune.solvers import OBS, FixedOrder
from zellige.prune.solvers.problem import Problem

BLOCKS = [Block(2, 2), Block(2, 3), Block(1, 2), Block(2, 2, per_tap=True), Unstructured()]
FEW = [NM(2, 4), NM(1, 2), NM(1, 2, "outputs"), VNM(2, 2, 5)]


@st.composite
def problems(draw: st.DrawFn, patterns: list[Pattern]) -> Problem:
    groups, pattern = draw(st.sampled_from([1, 1, 2])), draw(st.sampled_from(patterns))
    rows, columns, taps = groups * draw(st.integers(2, 5)), draw(st.integers(2, 9)), draw(st.sampled_from([(), (2,), (1, 2)]))
    shape = WeightShape((rows, columns, *taps), groups)
    share = float(pattern.sparsity) if isinstance(pattern, FixedShare) else draw(st.sampled_from([0.2, 0.5, 0.8]))
    return problem(pattern, shape, share, draw(st.integers(0, 10_000)))


def slowly(of: Problem, mask: torch.Tensor) -> torch.Tensor:
    """What goes of an input is made up for by the inputs behind it, as the inverse of their Hessian says."""
    weight, masks = of.rows.clone(), mask.reshape(of.rows.shape)
    for group, hessian in enumerate(of.hessian):
        for at in range(weight.shape[2]):
            inverted = torch.linalg.inv(hessian[at:, at:])
            error = weight[group, :, at] * ~masks[group, :, at] / inverted[0, 0]
            weight[group, :, at:] -= error[:, None] * inverted[0]
    return (weight * masks).reshape(of.shape.dims)


@given(problems([*BLOCKS, *FEW]), st.sampled_from([1, 7, 128]))
def test_updates(of: Problem, window: int) -> None:
    """Whatever the mask, and however many inputs are brought up to date together."""
    kept, fixed_order.WINDOW = fixed_order.WINDOW, window
    try:
        solution = FixedOrder().solve(of)
    finally:
        fixed_order.WINDOW = kept
    torch.testing.assert_close(solution.weight, slowly(of, solution.mask), **EXACT)
    assert of.pattern.verify(solution.mask, of.shape.groups).clean
    gone = of.pattern.verify(solution.mask, of.shape.groups)
    if not isinstance(of.pattern, FixedShare):
        assert gone.gone == int(of.share * gone.blocks)


@given(problems([Block(2, 2), Block(2, 3), Unstructured()]))
def test_blocks_that_go_cost_least_when_their_run_is_reached(of: Problem) -> None:
    """By definition: costs as the inverse of the Hessian of this and all later inputs has them, weights as they are by then."""
    solution = FixedOrder().solve(of)
    columns = of.pattern.columns if isinstance(of.pattern, Block) else 1
    run = min(columns, of.shape.columns) * of.shape.taps
    masks = solution.mask.reshape(of.rows.shape)
    height = of.pattern.rows if isinstance(of.pattern, Block) else 1
    for start in range(0, masks.shape[2], run):
        before = masks.clone()
        before[:, :, start:] = True
        weight = slowly(of, before.reshape(of.shape.dims)).reshape(masks.shape)
        costs, gone = [], []
        stop = min(start + run, masks.shape[2])
        parts = [[at] for at in range(start, stop)] if isinstance(of.pattern, Unstructured) else [list(range(start, stop))]
        for group, hessian in enumerate(of.hessian):
            inverted = torch.linalg.inv(hessian[start:, start:])
            for top in range(0, masks.shape[1], height):
                for part in parts:
                    rows = weight[group, top:top + height, part]
                    inside = torch.tensor(part) - start
                    block = torch.linalg.inv(inverted[inside[:, None], inside])
                    costs.append(float(((rows @ block) * rows).sum()) / rows.numel())
                    gone.append(not bool(masks[group, top, part[0]]))
        taken = [cost for cost, went in zip(costs, gone, strict=True) if went]
        spared = [cost for cost, went in zip(costs, gone, strict=True) if not went]
        assert not taken or not spared or max(taken) <= min(spared) * (1 + 1e-6)


@pytest.mark.parametrize("pattern", [NM(2, 4), NM(1, 4), NM(2, 4, "outputs")])
def test_n_of_m_when_its_turn_comes(pattern: NM) -> None:
    of = problem(pattern, WeightShape((4, 8)), float(pattern.sparsity), seed=2)
    solution = FixedOrder().solve(of)
    run = 1 if pattern.along == "outputs" else pattern.m
    for start in range(0, 8, run):
        before = solution.mask.clone()
        before[:, start:] = True
        weight = slowly(of, before)[:, start:start + run]
        pivots = torch.stack([torch.linalg.inv(of.hessian[0][at:, at:])[0, 0] for at in range(start, start + run)])
        assert torch.equal(solution.mask[:, start:start + run], pattern.mask(weight.square() / pivots, float(pattern.sparsity)))


def test_without_correlation_weights_stay_and_masks_are_the_best() -> None:
    shape, diagonal = WeightShape((4, 8)), torch.arange(1.0, 9).double()
    for pattern in (Block(2, 2), Unstructured(), NM(2, 4)):
        of = problem(pattern, shape, 0.5, seed=1)
        alone = Problem("", pattern, Fraction(1, 2), shape, of.weight, torch.diag(diagonal)[None])
        solution = FixedOrder().solve(alone)
        torch.testing.assert_close(solution.weight, of.weight * solution.mask, rtol=1e-12, atol=0)
        assert torch.equal(solution.mask, pattern.mask(of.weight.square() * diagonal, 0.5))


def test_between_zeros_alone_and_the_exact_choice() -> None:
    for seed in range(5):
        of = problem(Block(4, 4), WeightShape((16, 32)), 0.5, seed, samples=200)
        plain = of.weight * of.pattern.mask(of.weight.abs(), 0.5)
        solution = FixedOrder().solve(of)
        assert loss(of, solution.weight) < loss(of, plain)
        assert loss(of, least_squares(of, solution.mask)) <= loss(of, solution.weight)
        assert loss(of, OBS().solve(of).weight) < loss(of, solution.weight)


def test_other_patterns_are_refused() -> None:
    for pattern in (Channel(), TileWise(4), TileVectorWise(4, 2, 4)):
        assert "admm" in str(FixedOrder().refusal(pattern))
