"""Block-OBS against brute force: the exact update, the exact greedy choice, and the best mask there is."""

from fractions import Fraction
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from solver_cases import EXACT, block_masks, greedy, least_squares, loss, problem

import zellige.prune.solvers.obs as obs
from zellige.patterns import Block, Channel, Pattern, Unstructured, WeightShape
from zellige.prune.solvers import OBS
from zellige.prune.solvers.groups import Groups
from zellige.prune.solvers.obs import staying, ways
from zellige.prune.solvers.problem import Problem, inverse
from zellige.prune.solvers.refit import refit

PATTERNS = st.sampled_from([Block(2, 2), Block(2, 3), Block(3, 2), Block(1, 2), Block(2, 2, per_tap=True), Unstructured(),
                            Channel()])


@st.composite
def problems(draw: st.DrawFn, patterns: st.SearchStrategy[Pattern] = PATTERNS) -> Problem:
    groups = draw(st.sampled_from([1, 1, 2]))
    rows, columns, taps = groups * draw(st.integers(2, 3)), draw(st.integers(2, 4)), draw(st.sampled_from([(), (2,), (1, 2)]))
    shape = WeightShape((rows, columns, *taps), groups)
    return problem(draw(patterns), shape, draw(st.sampled_from([0.2, 0.5, 0.8])), draw(st.integers(0, 10_000)))


@given(problems())
def test_the_choice_is_the_exact_greedy_one(of: Problem) -> None:
    solution = OBS().solve(of)
    assert torch.equal(solution.mask, greedy(of))
    torch.testing.assert_close(solution.weight, least_squares(of, solution.mask), **EXACT)
    assert not solution.weight[~solution.mask].any()


@given(problems(st.sampled_from([Block(2, 2), Block(2, 3), Unstructured()])))
def test_costs_are_what_the_normal_equations_say(of: Problem) -> None:
    """Along the way of every band: the cost of a step is what the loss of the best weights rises by."""
    order, costs = ways(Problem(of.layer, of.pattern, of.pattern.check(0), of.shape, of.weight, of.hessian))
    blocks = block_masks(of.pattern, of.shape)
    per_band = order.shape[1]
    for band, (steps, found) in enumerate(zip(order.tolist(), costs.tolist(), strict=True)):
        assert sorted(steps) == list(range(per_band))
        mask, before = torch.ones(of.shape.dims, dtype=torch.bool), 0.0
        for step, cost in zip(steps, found, strict=True):
            block = blocks[band * per_band + step]
            mask = mask & ~block
            after = loss(of, least_squares(of, mask))
            assert cost * int(block.sum()) == pytest.approx(after - before, rel=1e-6, abs=1e-7)
            before = after


@given(problems(st.sampled_from([Block(2, 2), Block(1, 3)])))
def test_one_update_after_another_ends_where_the_fit_does(of: Problem) -> None:
    """w ← w − w_q (P_qq)⁻¹ P_q, with the inverse P of what is left made anew each time."""
    solution = OBS().solve(of)
    weight = of.rows.clone()
    masks = solution.mask.reshape(weight.shape)
    for group, hessian in enumerate(of.hessian):
        for row in range(weight.shape[1]):
            left = list(range(weight.shape[2]))
            for gone in (~masks[group, row]).nonzero().flatten().tolist():
                inverted = torch.linalg.inv(hessian[left][:, left])
                at = left.index(gone)
                weight[group, row, left] -= weight[group, row, gone] / inverted[at, at] * inverted[at]
                left.remove(gone)
    torch.testing.assert_close(solution.weight, (weight * masks).reshape(of.shape.dims), **EXACT)


def test_the_best_mask_there_is() -> None:
    """One block going, greedy is best; and where inputs are not correlated, always. Otherwise it is no better than the best."""
    shape = WeightShape((4, 6))
    blocks = block_masks(Block(2, 2), shape)
    for seed in range(10):
        for removed in (1, 2, 3):
            of = problem(Block(2, 2), shape, Fraction(removed, len(blocks)), seed)
            best = min(loss(of, least_squares(of, ~torch.stack(few).any(0))) for few in combinations(blocks, removed))
            found = loss(of, OBS().solve(of).weight)
            assert found >= best * (1 - 1e-9)
            if removed == 1:
                assert found == pytest.approx(best, rel=1e-9)
    alone = Problem("", Block(2, 2), Block(2, 2).check(0.5), shape, of.weight, torch.diag(torch.arange(1.0, 7).double())[None])
    best = min(loss(alone, alone.weight * ~torch.stack(few).any(0)) for few in combinations(blocks, 3))
    solution = OBS().solve(alone)
    assert loss(alone, solution.weight) == pytest.approx(best, rel=1e-12)
    torch.testing.assert_close(solution.weight, alone.weight * solution.mask, rtol=1e-12, atol=0)  # nothing to make up with


def test_large_enough_to_drop_what_has_gone_and_to_break_off() -> None:
    """More groups than one, arrays compacted, ways that break off: the same as following every way to its end."""
    of = problem(Block(4, 2), WeightShape((32, 32)), 0.5, seed=5, samples=200)
    solution = OBS().solve(of)
    order, costs = ways(Problem("", of.pattern, of.pattern.check(0), of.shape, of.weight, of.hessian))
    assert bool(costs.isfinite().all())
    mask = Block(4, 2).expand(staying(order, costs, 64).flatten(), of.shape)
    assert torch.equal(solution.mask, mask)
    torch.testing.assert_close(solution.weight, least_squares(of, mask), **EXACT)
    half = loss(of, refit(of, of.pattern.mask(of.weight.square(), 0.5)).weight)
    assert loss(of, solution.weight) < 0.8 * half


def test_ways_break_off_only_beyond_what_goes() -> None:
    of = problem(Block(2, 2), WeightShape((64, 16)), 0.3, seed=1)
    kept, obs.TOGETHER = obs.TOGETHER, 1
    try:
        order, costs = ways(of)
    finally:
        obs.TOGETHER = kept
    assert not bool(costs.isfinite().all())  # some did
    all_order, all_costs = ways(Problem("", of.pattern, of.pattern.check(0), of.shape, of.weight, of.hessian))
    removed = int(of.share * costs.numel())
    assert torch.equal(staying(order, costs, removed), staying(all_order, all_costs, removed))


def test_inputs_that_never_moved() -> None:
    """Dead columns: their weights cost least, and nothing is made up for by them."""
    of = problem(Block(2, 2), WeightShape((4, 8)), 0.5, seed=0)
    seen = of.hessian[0].clone()
    seen[:, 2:4] = seen[2:4] = 0
    seen[range(2, 4), range(2, 4)] = 1e-9
    dead = Problem("", of.pattern, of.share, of.shape, of.weight, seen[None])
    solution = OBS().solve(dead)
    assert not solution.mask[:, 2:4].any()
    torch.testing.assert_close(solution.weight, least_squares(dead, solution.mask), **EXACT)


def test_groups_cover_every_input_once() -> None:
    for block, shape in ((Block(2, 3), WeightShape((4, 7, 2))), (Block(2, 3, per_tap=True), WeightShape((4, 7, 2))),
                         (Block(9, 9), WeightShape((4, 2, 3, 3)))):
        groups = Groups.of(block, shape)
        assert sorted(groups.order[groups.order >= 0].tolist()) == list(range(shape.columns * shape.taps))
        assert groups.sizes().flatten().tolist() == block.block_sizes(shape).tolist()


def test_the_inverse() -> None:
    hessian = problem(Unstructured(), WeightShape((4, 6), 2), 0.5, seed=3).hessian
    torch.testing.assert_close(inverse(hessian) @ hessian, torch.eye(6).double().expand(2, 6, 6), rtol=0, atol=1e-9)


def test_the_number_of_threads_changes_nothing() -> None:
    """Threads take turns at bands, each computing by itself; what breaks off differs, what goes doesn't."""
    of = problem(Block(2, 2), WeightShape((40, 12)), 0.4, seed=2)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = OBS().solve(of)
        torch.set_num_threads(3)
        kept, obs.TOGETHER = obs.TOGETHER, 1
        try:
            together = OBS().solve(of)
        finally:
            obs.TOGETHER = kept
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone.mask, together.mask)
    torch.testing.assert_close(alone.weight, together.weight, rtol=1e-12, atol=1e-12)
