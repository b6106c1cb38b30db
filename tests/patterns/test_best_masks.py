"""Masks against brute force: of all masks that a pattern allows, none keeps more of the scores.

Scores are whole numbers, drawn so that ties are rare or abound: sums are exact, and what is kept can be compared exactly.
"""

import re
from itertools import combinations, product

import pytest
import torch
from every_pattern import FEW_OF_MANY, shapes
from hypothesis import given
from hypothesis import strategies as st

from zellige.errors import PruneError
from zellige.patterns import NM, VNM, Block, Channel, Partition, Unstructured, WeightShape
from zellige.patterns.shares import floor_share

LARGEST = st.sampled_from([2, 1000])


def drawn(shape: WeightShape, seed: int, largest: int) -> torch.Tensor:
    return torch.randint(1, largest + 1, shape.dims, generator=torch.Generator().manual_seed(seed)).double()


def members(pattern: Partition, shape: WeightShape) -> list[torch.Tensor]:
    """The weights of each block, as masks: found by keeping one block at a time."""
    return [pattern.expand(one, shape) for one in torch.eye(pattern.blocks(shape), dtype=torch.bool)]


@pytest.mark.parametrize(("pattern", "dims", "groups"), [
    (Unstructured(), (3, 4), 1), (Unstructured(), (2, 1, 2, 2), 1), (Channel(), (9, 3), 1), (Channel(), (8, 2, 2), 2),
    (Block(2, 2), (6, 6), 1), (Block(1, 8), (4, 16), 1), (Block(8, 1), (16, 5), 1), (Block(16, 1), (16, 9), 1),
    (Block(4, 4), (8, 4, 2, 2), 2), (Block(32, 32), (64, 64), 1), (Block(2, 1, per_tap=True), (4, 2, 2), 1)])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.75])
@pytest.mark.parametrize("largest", [2, 1000])
def test_free_blocks(pattern: Partition, dims: tuple[int, ...], groups: int, sparsity: float, largest: int) -> None:
    shape = WeightShape(dims, groups)
    scores = drawn(shape, 0, largest)
    sums = [int(scores[block].sum()) for block in members(pattern, shape)]
    removed = floor_share(sparsity, len(sums))
    least_lost = min(sum(lost) for lost in combinations(sums, removed))
    mask = pattern.mask(scores, sparsity, groups)
    assert int((scores * ~mask).sum()) == least_lost
    assert int((~mask).sum()) == removed * int(members(pattern, shape)[0].sum())


def groups_of(pattern: NM, shape: WeightShape) -> list[list[tuple[int, int, int]]]:
    """The (row, column, tap) of the weights of each group of neighbours."""
    found = []
    rows, columns = range(shape.rows_per_group), range(shape.columns)
    for group, tap in product(range(shape.groups), range(shape.taps)):
        first = group * shape.rows_per_group
        if pattern.along == "inputs":
            lines = [[(first + row, column, tap) for column in columns] for row in rows]
        else:
            lines = [[(first + row, column, tap) for row in rows] for column in columns]
        found += [line[at:at + pattern.m] for line in lines for at in range(0, len(line), pattern.m)]
    return found


@given(FEW_OF_MANY, st.sampled_from(["inputs", "outputs"]), shapes(), st.integers(0, 999), LARGEST)
def test_n_of_m(few: tuple[int, int], along: str, shape: WeightShape, seed: int, largest: int) -> None:
    pattern = NM(*few, along)
    scores = drawn(shape, seed, largest)
    values, mask = (tensor.reshape(shape.rows, shape.columns, shape.taps)
                    for tensor in (scores, pattern.mask(scores, float(pattern.sparsity), shape.groups)))
    for group in groups_of(pattern, shape):
        stay = min(pattern.n, len(group))
        kept = [int(values[at]) for at in group if mask[at]]
        assert len(kept) == stay
        assert sum(kept) == max(sum(int(values[at]) for at in choice) for choice in combinations(group, stay))


def test_equals_go_from_the_left() -> None:
    assert NM(2, 4).mask(torch.ones(1, 8), 0.5).int().tolist() == [[0, 0, 1, 1, 0, 0, 1, 1]]
    assert VNM(1, 2, 8).mask(torch.ones(1, 8), 0.75).int().tolist() == [[0, 0, 0, 0, 0, 0, 1, 1]]
    assert Unstructured().mask(torch.ones(1, 4), 0.5).int().tolist() == [[0, 0, 1, 1]]


def best_block(block: list[list[int]], n: int) -> int:
    """The most that four columns of a block can keep, each row its best n of them."""
    columns = range(len(block[0]))
    return max(sum(sum(sorted(row[column] for column in four)[-n:]) for row in block)
               for four in combinations(columns, min(4, len(columns))))


def blocks_of(tensor: torch.Tensor, pattern: VNM, shape: WeightShape) -> list[torch.Tensor]:
    matrix = tensor.reshape(shape.matrix)
    return [matrix[group, top:top + pattern.v, left:left + pattern.m, tap]
            for group, tap in product(range(shape.groups), range(shape.taps))
            for top in range(0, shape.rows_per_group, pattern.v) for left in range(0, shape.columns, pattern.m)]


@given(st.builds(VNM, st.integers(1, 4), st.integers(1, 4), st.integers(5, 9)), shapes(), st.integers(0, 999), LARGEST)
def test_n_of_four_columns_of_m(pattern: VNM, shape: WeightShape, seed: int, largest: int) -> None:
    scores = drawn(shape, seed, largest)
    mask = pattern.mask(scores, float(pattern.sparsity), shape.groups)
    for block, kept in zip(blocks_of(scores, pattern, shape), blocks_of(mask, pattern, shape), strict=True):
        assert kept.any(0).sum() <= 4
        assert kept.sum(1).tolist() == [min(pattern.n, block.shape[1])] * len(block)
        assert int((block * kept).sum()) == best_block(block.int().tolist(), pattern.n)


@given(st.integers(1, 4), st.sampled_from([13, 20]), st.integers(0, 999), LARGEST)
def test_wide_blocks_keep_nearly_the_most(n: int, m: int, seed: int, largest: int) -> None:
    """Exchanges end where no single one gains, which is the best of all choices or close to it."""
    pattern, shape = VNM(8, n, m), WeightShape((8, m))
    scores = drawn(shape, seed, largest)
    mask = pattern.mask(scores, float(pattern.sparsity))
    assert mask.any(0).sum() <= 4 and mask.sum(1).tolist() == [n] * 8
    kept = int((scores * mask).sum())
    four = set(mask.any(0).nonzero().flatten().tolist())
    if len(four) == 4:
        for gone, new in product(four, set(range(m)) - four):
            assert best_block(scores[:, sorted(four - {gone} | {new})].int().tolist(), n) <= kept
    assert kept >= 0.96 * best_block(scores.int().tolist(), n)


@pytest.mark.parametrize("pattern", [NM(2, 4), VNM(4, 2, 8), NM(1, 3)])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.9])
def test_another_sparsity_is_refused(pattern: NM | VNM, sparsity: float) -> None:
    with pytest.raises(PruneError, match=rf"{pattern} keeps {pattern.n} of every {pattern.m} .* Ask for 0\.\d+"):
        pattern.mask(torch.rand(16, 16), sparsity)


def test_thirds_are_asked_for_as_python_writes_them() -> None:
    assert NM(1, 3).mask(torch.rand(4, 9), 2 / 3).sum() == 12
    assert NM(2, 3).mask(torch.rand(4, 9), 1 - 2 / 3).sum() == 24


@pytest.mark.parametrize("pattern", [NM(1, 3), NM(2, 3), NM(3, 7), NM(1, 1025), VNM(4, 2, 7)])
def test_the_sparsity_that_a_message_names_is_taken(pattern: NM | VNM) -> None:
    with pytest.raises(PruneError) as caught:
        pattern.check(0.01)
    asked = re.search(r"Ask for ([\d.]+),", str(caught.value))
    assert asked and pattern.check(float(asked[1])) == pattern.sparsity
