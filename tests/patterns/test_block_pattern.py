"""Block patterns against a weight-by-weight definition, over generated shapes."""

from collections import defaultdict
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zellige.errors import PruneError
from zellige.patterns import Block, WeightShape, sums
from zellige.patterns import block as block_module
from zellige.patterns.sums import row_sums


@st.composite
def cases(draw: st.DrawFn) -> tuple[Block, WeightShape]:
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    rows, columns = groups * draw(st.integers(1, 11)), draw(st.integers(1, 11))
    taps = draw(st.sampled_from([(), (1, 1), (3,), (2, 3), (1, 2, 2)]))
    sides = st.one_of(st.integers(1, 9), st.just(10**12))  # the last: a block that no memory could hold in full
    pattern = Block(draw(sides), draw(sides), per_tap=draw(st.booleans()))
    return pattern, WeightShape((rows, columns, *taps), groups)


def members(pattern: Block, shape: WeightShape) -> list[list[tuple[int, int, int]]]:
    """For each block, in order, the (row, column, tap) of its weights: the definition, one weight at a time."""
    found = defaultdict(list)
    for row, column, tap in product(range(shape.rows), range(shape.columns), range(shape.taps)):
        group, row_in_group = divmod(row, shape.rows_per_group)
        own_tap = tap if pattern.per_tap else 0
        found[group, row_in_group // pattern.rows, column // pattern.columns, own_tap].append((row, column, tap))
    return [found[key] for key in sorted(found)]


def flat(tensor: torch.Tensor, shape: WeightShape) -> torch.Tensor:
    return tensor.reshape(shape.rows, shape.columns, shape.taps)


@given(cases(), st.integers(0, 999))
def test_blocks_sizes_scores_and_masks_follow_the_definition(case: tuple[Block, WeightShape], seed: int) -> None:
    pattern, shape = case
    generator = torch.Generator().manual_seed(seed)
    expected = members(pattern, shape)
    assert pattern.blocks(shape) == len(expected)
    assert pattern.block_sizes(shape).tolist() == [len(block) for block in expected]

    scores = torch.randint(0, 50, shape.dims, generator=generator)  # whole numbers: sums are exact in any order
    values = flat(scores, shape)
    sums = [sum(int(values[at]) for at in block) for block in expected]
    assert pattern.block_scores(scores.float(), shape.groups).tolist() == sums

    kept = torch.rand(len(expected), generator=generator) < 0.5
    mask = torch.zeros(shape.rows, shape.columns, shape.taps, dtype=torch.bool)
    for stays, block in zip(kept.tolist(), expected, strict=True):
        for at in block:
            mask[at] = stays
    assert torch.equal(pattern.expand(kept, shape), mask.reshape(shape.dims))


@given(cases(), st.integers(0, 999), st.sampled_from([0.0, 0.3, 0.7, 1.0]))
def test_verify_tells_zero_blocks_from_partly_zero_ones(
    case: tuple[Block, WeightShape], seed: int, density: float
) -> None:
    pattern, shape = case
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(pattern.blocks(shape), generator=generator) < density
    weight = torch.randn(shape.dims, generator=generator) * pattern.expand(kept, shape)
    weight.view(-1)[int(torch.randint(0, shape.weights, (), generator=generator))] = 0
    census = pattern.verify(weight, shape.groups)
    zeros = [[bool(flat(weight, shape)[at] == 0) for at in block] for block in members(pattern, shape)]
    assert (census.blocks, census.gone) == (len(zeros), sum(map(all, zeros)))
    assert census.sparsity == pytest.approx(sum(map(all, zeros)) / len(zeros), abs=1e-15)
    for block in members(pattern, shape):
        partial = any(flat(weight, shape)[at] != 0 for at in block)
        assert all(bool(flat(census.violations, shape)[at]) == (partial and flat(weight, shape)[at] == 0) for at in block)


@given(cases(), st.integers(0, 999), st.sampled_from([0.0, 0.25, 0.5, 0.9]))
def test_random_masks_are_exact_repeatable_and_fit_the_pattern(
    case: tuple[Block, WeightShape], seed: int, sparsity: float
) -> None:
    pattern, shape = case
    mask = pattern.random_mask(shape, sparsity, torch.Generator().manual_seed(seed))
    again = pattern.random_mask(shape, sparsity, torch.Generator().manual_seed(seed))
    assert torch.equal(mask, again)
    census = pattern.verify(mask.float(), shape.groups)
    assert census.gone == int(sparsity * pattern.blocks(shape))
    assert census.clean


@given(cases(), st.integers(0, 999))
def test_scores_are_the_same_bits_for_any_thread_count_and_slab(case: tuple[Block, WeightShape], seed: int) -> None:
    pattern, shape = case
    scores = torch.rand(shape.dims, generator=torch.Generator().manual_seed(seed)).pow(8)
    whole = pattern.block_scores(scores, shape.groups)
    rows = row_sums(scores)
    threads, slab = torch.get_num_threads(), sums.SLAB
    try:
        torch.set_num_threads(threads % 2 + 1)
        sums.SLAB = block_module.SLAB = 1
        assert torch.equal(pattern.block_scores(scores, shape.groups), whole)
        assert torch.equal(row_sums(scores), rows)
    finally:
        torch.set_num_threads(threads)
        sums.SLAB = block_module.SLAB = slab


def test_equal_blocks_have_equal_scores_wherever_they_stand() -> None:
    tile = torch.randn(8, 8, 3, 3).abs().double() ** 9
    scores = tile.repeat(5, 7, 1, 1)
    assert Block(8, 8).block_scores(scores).unique().numel() == 1


def test_scores_leave_their_input_alone() -> None:
    scores = torch.rand(16, 16, dtype=torch.float64)
    before = scores.clone()
    Block(8, 8).block_scores(scores)
    assert torch.equal(scores, before)


def test_lowest_scores_go_and_ties_go_by_position() -> None:
    scores = torch.tensor([2.0, 1.0, 1.0, 1.0, 0.0, 3.0, 1.0, 2.0]).reshape(2, 4).repeat_interleave(2, 0)
    kept = Block(2, 1).mask(scores, 0.375)[::2]
    assert kept.flatten().tolist() == [True, False, False, True, False, True, True, True]


def test_compact_bytes_count_kept_values_and_indices() -> None:
    shape = WeightShape((20, 20, 3, 3))  # 3 bands of 3 blocks, the last ones 4 wide
    kept = torch.tensor([True, False, True, False, False, False, False, False, True])
    values = (8 * 8 + 8 * 4 + 4 * 4) * 9
    mask = Block(8, 8).expand(kept, shape)
    assert Block(8, 8).compact_bytes(mask) == values * 4 + 3 * 4 + 4 * 4
    assert Block(8, 8).compact_bytes(mask, itemsize=2) == values * 2 + 3 * 4 + 4 * 4


@pytest.mark.parametrize(
    ("pattern", "shape", "too_small"),
    [
        (Block(8, 8), WeightShape((16, 16)), False),
        (Block(8, 8), WeightShape((16, 8)), True),  # 2 blocks
        (Block(8, 8), WeightShape((7, 1000)), True),
        (Block(8, 8), WeightShape((1000, 7)), True),
        (Block(8, 8), WeightShape((10, 64)), False),  # one full band, one ragged
        (Block(8, 8), WeightShape((128, 4, 3, 3), groups=32), True),  # 4×4 in each group
        (Block(4, 4), WeightShape((128, 4, 3, 3), groups=32), False),
        (Block(8, 8, per_tap=True), WeightShape((8, 8, 3, 3)), False),  # 9 blocks
        (Block(8, 1), WeightShape((8, 3, 1, 1)), True),
    ],
)
def test_a_weight_is_too_small_below_one_block_or_four_blocks(
    pattern: Block, shape: WeightShape, too_small: bool
) -> None:
    assert (pattern.too_small(shape) is not None) == too_small


def test_depthwise_weights_are_refused_and_grouped_ones_are_not() -> None:
    assert "depthwise" in str(Block(1, 1).refusal(WeightShape((32, 1, 3, 3), groups=32)))
    assert "depthwise" in str(Block(8, 8).refusal(WeightShape((64, 1, 3, 3), groups=32)))
    assert Block(8, 8).refusal(WeightShape((64, 8, 3, 3), groups=8)) is None
    assert Block(8, 8).refusal(WeightShape((64, 1, 3, 3))) is None


@pytest.mark.parametrize("sides", [(0, 8), (8, -1), (8, 2.0), (True, 8), ("8", 8)])
def test_sides_must_be_positive_whole_numbers(sides: tuple[int, int]) -> None:
    with pytest.raises(PruneError, match="positive whole number"):
        Block(*sides)


@pytest.mark.parametrize(("dims", "groups"), [((8,), 1), ((8, 0), 1), ((), 1), ((8, 8), 3), ((8, 8), 0)])
def test_shapes_that_are_no_weights_are_refused(dims: tuple[int, ...], groups: int) -> None:
    with pytest.raises(PruneError):
        WeightShape(dims, groups)
