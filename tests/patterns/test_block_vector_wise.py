"""Vector-wise sparsity in blocks, weight by weight: which blocks stay, and which of every few columns in them.

Scores are whole numbers, drawn so that ties are rare or abound: means and sums are exact.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import combinations, product

import pytest
import torch
from every_pattern import VECTORS_IN_BLOCKS, shapes
from hypothesis import given
from hypothesis import strategies as st

from zellige.errors import PruneError
from zellige.patterns import NM, BlockVectorWise, Scored, WeightShape
from zellige.patterns.shares import exact_sparsity, floor_share

At = tuple[int, int, int]
"""A weight, as (row, column, tap)."""

SPARSITIES = st.sampled_from([0.5, 0.6, 0.75, 0.9])
LARGEST = st.sampled_from([1, 3, 1000])


def drawn(shape: WeightShape, seed: int, largest: int) -> torch.Tensor:
    return torch.randint(1, largest + 1, shape.dims, generator=torch.Generator().manual_seed(seed)).double()


def three_axes(tensor: torch.Tensor, shape: WeightShape) -> torch.Tensor:
    return tensor.reshape(shape.rows, shape.columns, shape.taps)


def blocks_of(pattern: BlockVectorWise, shape: WeightShape) -> list[list[At]]:
    """The weights of each block: group by group, band by band, run by run, tap by tap."""
    taps = [[tap] for tap in range(shape.taps)] if pattern.per_tap else [list(range(shape.taps))]
    return [[(group * shape.rows_per_group + row, column, tap)
             for row in range(top, min(top + pattern.rows, shape.rows_per_group))
             for column in range(left, min(left + pattern.columns, shape.columns)) for tap in some]
            for group, top, left, some in product(range(shape.groups), range(0, shape.rows_per_group, pattern.rows),
                                                  range(0, shape.columns, pattern.columns), taps)]


def lines_of(block: Sequence[At], m: int) -> Iterator[list[At]]:
    """The weights of a block, by groups of m neighbours."""
    at: dict[At, list[At]] = {}
    for row, column, tap in block:
        at.setdefault((row, tap, column // m), []).append((row, column, tap))
    return iter(at.values())


def staying(pattern: BlockVectorWise, layers: Sequence[WeightShape], scores: Sequence[torch.Tensor],
            sparsity: float | Fraction) -> list[list[bool]]:
    """Which blocks of each layer stay: those of lowest mean go, of what they would keep, the first of equals, but no layer's best,
    the last of equals."""
    means = [[Fraction(sum(sum(sorted(int(three_axes(score, shape)[at]) for at in line)[-pattern.n:])
                           for line in lines_of(block, pattern.m)), len(block)) for block in blocks_of(pattern, shape)]
             for shape, score in zip(layers, scores, strict=True)]
    best = {(layer, max((mean, number) for number, mean in enumerate(of_layer))[1]) for layer, of_layer in enumerate(means)}
    order = sorted((mean, layer, number) for layer, of_layer in enumerate(means) for number, mean in enumerate(of_layer)
                   if (layer, number) not in best)
    share = 1 - (1 - exact_sparsity(sparsity)) * Fraction(pattern.m, pattern.n)
    gone = {(layer, number) for _, layer, number in order[:floor_share(share, sum(map(len, means)))]}
    return [[(layer, number) not in gone for number in range(len(of_layer))] for layer, of_layer in enumerate(means)]


@given(VECTORS_IN_BLOCKS, st.lists(shapes(10), min_size=1, max_size=3), SPARSITIES, st.integers(0, 999), LARGEST)
def test_blocks_of_lowest_mean_go_and_n_of_m_neighbours_stay(pattern: BlockVectorWise, layers: list[WeightShape], asked: float,
                                                             seed: int, largest: int) -> None:
    sparsity = max(asked, float(pattern.inside.sparsity))
    scores = [drawn(shape, seed + number, largest) for number, shape in enumerate(layers)]
    expected = staying(pattern, layers, scores, max(exact_sparsity(asked), pattern.inside.sparsity))
    blocks = sum(map(len, expected))
    ranked = [Scored(shape, lambda score=score: score) for shape, score in zip(layers, scores, strict=True)]  # type: ignore[misc]
    if floor_share(pattern.outer_sparsity(pattern.check(sparsity)), blocks) > blocks - len(layers):
        with pytest.raises(PruneError, match="must keep one"):
            pattern.masks(ranked, sparsity)
        return
    for shape, score, mask, kept in zip(layers, scores, pattern.masks(ranked, sparsity), expected, strict=True):
        values, marks = three_axes(score, shape), three_axes(mask, shape)
        for block, stays in zip(blocks_of(pattern, shape), kept, strict=True):
            for group in lines_of(block, pattern.m):
                most = min(pattern.n, len(group)) if stays else 0
                left = [int(values[at]) for at in group if marks[at]]
                assert len(left) == most
                assert sum(left) == max(sum(int(values[at]) for at in choice) for choice in combinations(group, most))


@pytest.mark.parametrize("per_tap", [False, True])
def test_ragged_edges(per_tap: bool) -> None:
    """130 × 70 is four blocks of 128 × 64. The smallest, 2 × 6, holds a group of four columns and one of two, which both stay."""
    scores = drawn(WeightShape((130, 70, 3)), 0, 1000)
    scores[:128, :64] *= 1000
    scores[128:, 64:] *= 1000
    pattern = BlockVectorWise(128, 64, 2, 4, per_tap)
    mask = pattern.mask(scores, 0.75)
    assert mask[:128].sum(1).unique().tolist() == [32] and not mask[:128, 64:].any()
    assert mask[128:].sum(1).unique().tolist() == [4] and not mask[128:, :64].any() and mask[128:, 68:].all()
    assert pattern.verify(mask).clean


@given(VECTORS_IN_BLOCKS, shapes(), st.integers(0, 999))
def test_whatever_keeps_to_n_of_m_keeps_to_it_in_blocks(pattern: BlockVectorWise, shape: WeightShape, seed: int) -> None:
    """And what holds more breaks it, where it does so."""
    weight = drawn(shape, seed, 3) - 1
    found, plain = pattern.verify(weight, shape.groups), NM(pattern.n, pattern.m).verify(weight, shape.groups)
    assert torch.equal(found.violations, plain.violations)
    assert (found.blocks, found.gone) == (shape.weights, int((weight == 0).sum()))
    broken = three_axes(found.violations, shape)
    marks = three_axes(weight, shape) != 0
    for block in blocks_of(pattern, shape):
        for group in lines_of(block, pattern.m):
            too_many = sum(bool(marks[at]) for at in group) > pattern.n
            assert [bool(broken[at]) for at in group] == [too_many and bool(marks[at]) for at in group]


@given(VECTORS_IN_BLOCKS, shapes(), SPARSITIES, st.integers(0, 999), st.sampled_from([2, 4]))
def test_bytes_weight_by_weight(pattern: BlockVectorWise, shape: WeightShape, asked: float, seed: int, itemsize: int) -> None:
    mask = pattern.mask(drawn(shape, seed, 1000), max(asked, float(pattern.inside.sparsity)), shape.groups)
    marks = three_axes(mask, shape)
    kept = [block for block in blocks_of(pattern, shape) if any(marks[at] for at in block)]
    values = pattern.n * sum(1 for block in kept for _ in lines_of(block, pattern.m))
    bits = next(bits for bits in range(9) if 2**bits >= pattern.m) * values
    bands = shape.groups * -(-shape.rows_per_group // pattern.rows)
    assert pattern.compact_bytes(mask, shape.groups, itemsize) == values * itemsize + -(-bits // 8) + 4 * (len(kept) + bands + 1)


def test_halves_of_halves() -> None:
    """512 × 512 at 75 %: 16 of 32 blocks stay, and of them every second weight."""
    pattern = BlockVectorWise(128, 64, 2, 4)
    scores = torch.rand(512, 512, generator=torch.Generator().manual_seed(0))
    mask = pattern.mask(scores, 0.75)
    assert int(mask.sum()) == 512 * 512 // 4
    blocks = mask.reshape(4, 128, 8, 64).sum((1, 3)).flatten()
    assert sorted(blocks.tolist()) == [0] * 16 + [128 * 32] * 16
    assert pattern.compact_bytes(mask, itemsize=2) == 65536 * 2 + 65536 // 4 + 4 * (16 + 4 + 1)


def test_too_full_groups_are_found() -> None:
    pattern, scores = BlockVectorWise(8, 8, 2, 4), drawn(WeightShape((16, 32)), 0, 1000)
    weight = scores * pattern.mask(scores, 0.75)
    row, column = map(int, (weight == 0).nonzero()[0])
    left = column - column % 4
    weight[row, left:left + 4] = 1
    assert pattern.verify(weight).violations.nonzero().tolist() == [[row, at] for at in range(left, left + 4)]


def test_vectors_need_their_share_at_least() -> None:
    with pytest.raises(PruneError, match=r"tvw:8x8:2:4 .* sparsity is 0\.5 or more, and can't be 0\.4"):
        BlockVectorWise(8, 8, 2, 4).mask(torch.rand(16, 16), 0.4)
    assert BlockVectorWise(8, 8, 2, 4).mask(torch.rand(16, 16), 0.5).sum() == 128
    for third in (2 / 3, 0.666667, 0.666666):
        assert BlockVectorWise(8, 9, 1, 3).mask(torch.rand(9, 9), third).sum() == 27


@pytest.mark.parametrize(("arguments", "message"), [
    ((128, 66, 2, 4), "multiple of 4 for 2:4.* not 66 columns"), ((128, 2, 2, 4), "multiple of 4"), ((0, 64, 2, 4), "Block rows"),
    ((128, 0, 2, 4), "Block columns"), ((128, 64.0, 2, 4), "Block columns"), ((128, 64, 4, 4), "1 ≤ n < m"),
    ((128, 64, 0, 4), "1 ≤ n < m"), ((True, 64, 2, 4), "Block rows")])
def test_arguments_that_do_not_fit_are_refused(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(PruneError, match=message):
        BlockVectorWise(*arguments)


def test_weights_that_hold_no_blocks_to_choose_from_are_too_small() -> None:
    pattern = BlockVectorWise(128, 64, 2, 4)
    assert "less than one 128×64 block" in str(pattern.too_small(WeightShape((100, 512))))
    assert "less than one 128×64 block" in str(pattern.too_small(WeightShape((512, 32, 3, 3))))
    assert "only 2 blocks" in str(pattern.too_small(WeightShape((128, 128))))
    assert pattern.too_small(WeightShape((256, 128))) is None
