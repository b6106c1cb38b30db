"""Tile-wise masks, and those built on them, against the definition one weight at a time, over one layer and several.

Scores are whole numbers, so that sums are exact and ties abound.
"""

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations
from math import sqrt

import pytest
import torch
from every_pattern import FEW_OF_MANY, ROWS, TILED, shapes
from hypothesis import given
from hypothesis import strategies as st

from zellige.errors import PruneError
from zellige.patterns import Scored, TileElementWise, TileVectorWise, TileWise, WeightShape
from zellige.patterns.shares import exact_sparsity, floor_share

SPARSITIES = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.75, 0.9])
LAYERS = st.lists(shapes(10), min_size=1, max_size=3)
LARGEST = st.sampled_from([1, 3, 1000])


def drawn(layers: Sequence[WeightShape], seed: int, largest: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, largest + 1, shape.dims, generator=generator).double() for shape in layers]


def scored(scores: Sequence[torch.Tensor], layers: Sequence[WeightShape]) -> list[Scored]:
    return [Scored(shape, lambda one=one: one) for one, shape in zip(scores, layers, strict=True)]  # type: ignore[misc]


def three_axes(tensor: torch.Tensor, shape: WeightShape) -> torch.Tensor:
    return tensor.reshape(shape.rows, shape.columns, shape.taps)


Unit = list[tuple[int, int, int, int]]
"""Weights that go together, each as (layer, row, column, tap)."""


def lowest_units(units: list[Unit], spared: list[Unit], values: list[torch.Tensor], budget: int) -> list[Unit]:
    """Units by mean score, then position, for as long as their weights stay within the budget."""
    def mean(unit: Unit) -> Fraction:
        return Fraction(sum(int(values[layer][at]) for layer, *at_list in unit for at in [tuple(at_list)]), len(unit))
    gone, lost = [], 0
    for unit in sorted((unit for unit in units if unit not in spared), key=mean):  # sorting is stable
        if lost + len(unit) > budget:
            break
        lost += len(unit)
        gone.append(unit)
    return gone


def best(units: list[Unit], values: list[torch.Tensor]) -> Unit:
    """The last of the units of highest mean."""
    means = [sum(float(values[layer][row, column, tap]) for layer, row, column, tap in unit) / len(unit) for unit in units]
    return max(zip(means, range(len(units)), units, strict=True))[2]


def tiled_by_hand(pattern: TileWise, sparsity: Fraction, layers: Sequence[WeightShape],
                  scores: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The masks, from the definition."""
    values = [three_axes(one, shape) for one, shape in zip(scores, layers, strict=True)]
    masks = [torch.ones_like(one, dtype=torch.bool) for one in values]
    weights = sum(shape.weights for shape in layers)

    def remove(units: list[Unit]) -> None:
        for layer, row, column, tap in (at for unit in units for at in unit):
            masks[layer][row, column, tap] = False

    live = [list(range(shape.rows)) for shape in layers]
    if pattern.whole_rows:
        rows = [[[(layer, row, column, tap) for column in range(shape.columns) for tap in range(shape.taps)]
                 for row in range(shape.rows)] for layer, shape in enumerate(layers)]
        budget = int((1 - sqrt(1 - sparsity)) * weights + 1e-9)
        every = [row for of_layer in rows for row in of_layer]
        gone = lowest_units(every, [best(of_layer, values) for of_layer in rows], values, budget)
        remove(gone)
        live = [[row for row in range(shape.rows) if rows[layer][row] not in gone] for layer, shape in enumerate(layers)]

    units: list[Unit] = []
    spared: list[Unit] = []
    for layer, shape in enumerate(layers):
        for group in range(shape.groups):
            here = [row for row in live[layer] if row // shape.rows_per_group == group]
            for tile in (here[at:at + pattern.rows] for at in range(0, len(here), pattern.rows)):
                cuts = [[tap] for tap in range(shape.taps)] if pattern.per_tap else [list(range(shape.taps))]
                columns = [[(layer, row, column, tap) for row in tile for tap in taps]
                           for column in range(shape.columns) for taps in cuts]
                units += columns
                spared.append(best(columns, values))
    lost = sum(int((~mask).sum()) for mask in masks)
    remove(lowest_units(units, spared, values, floor_share(sparsity, weights) - lost))
    return [mask.reshape(shape.dims) for mask, shape in zip(masks, layers, strict=True)]


@given(TILED, LAYERS, SPARSITIES, st.integers(0, 999), LARGEST)
def test_rows_and_columns_of_lowest_mean_go(pattern: TileWise, layers: list[WeightShape], sparsity: float, seed: int,
                                            largest: int) -> None:
    scores = drawn(layers, seed, largest)
    masks = pattern.masks(scored(scores, layers), sparsity)
    expected = tiled_by_hand(pattern, exact_sparsity(sparsity), layers, scores)
    for mask, by_hand in zip(masks, expected, strict=True):
        assert torch.equal(mask, by_hand)


@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("largest", [3, 1000])
@pytest.mark.parametrize("per_tap", [False, True])
def test_no_fixed_tiles_keep_more(sparsity: float, largest: int, per_tap: bool) -> None:
    """TW1 against all ways to drop as many columns of tiles."""
    shape = WeightShape((6, 3, 2) if per_tap else (6, 5, 2))
    [scores] = drawn([shape], 0, largest)
    pattern = TileWise(3, whole_rows=False, per_tap=per_tap)
    lost = ~pattern.mask(scores, sparsity)
    columns = scores.reshape(2, 3, shape.columns, -1 if not per_tap else 2)
    sums = (columns.sum((1, 3)) if not per_tap else columns.sum(1).flatten(1)).int().tolist()
    places = [(tile, column) for tile in range(2) for column in range(len(sums[0]))]
    each = 6 if not per_tap else 3
    removed = floor_share(sparsity, shape.weights) // each
    assert int(lost.sum()) == removed * each
    assert int((scores * lost).sum()) == min(
        sum(sums[tile][column] for tile, column in choice) for choice in combinations(places, removed)
        if all(sum(tile == at for at, _ in choice) < len(sums[0]) for tile in range(2)))


@given(TILED, shapes(30), SPARSITIES, st.integers(0, 999))
def test_zeros_come_within_one_column_of_what_was_asked(pattern: TileWise, shape: WeightShape, sparsity: float, seed: int) -> None:
    [scores] = drawn([shape], seed, 1000)
    mask = pattern.mask(scores, sparsity, shape.groups)
    asked, gone = floor_share(sparsity, shape.weights), int((~mask).sum())
    assert gone <= asked
    tiles = pattern.tiles(mask.flatten(1).any(1), shape)
    if sum(int(pattern.columns(mask, tile).sum()) for tile in tiles) > len(tiles):  # not down to the best of each tile
        assert asked - gone < pattern.rows * (1 if pattern.per_tap else shape.taps)


@pytest.mark.parametrize("dead", [0, 2, 7])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.3, 0.5])
def test_rows_that_score_nothing_go_first_but_not_beyond_what_was_asked(dead: int, sparsity: float) -> None:
    """Of 16 rows: gradients, for one, are zero for all outputs that never fire, though their weights aren't."""
    [scores] = drawn([WeightShape((16, 20))], 0, 1000)
    scores[3:3 + dead] = 0
    mask = TileWise(4).mask(scores, sparsity)
    gone = (~mask.any(1)).nonzero().flatten().tolist()
    assert 320 * sparsity - 4 < int((~mask).sum()) <= 320 * sparsity  # a column of a tile is 4 weights
    assert len(gone) == max(int(16 * (1 - sqrt(1 - sparsity))), min(dead, int(16 * sparsity)))
    assert sum(row in range(3, 3 + dead) for row in gone) == min(dead, len(gone))


def test_both_sides_lose_alike() -> None:
    scores = torch.rand(64, 96, generator=torch.Generator().manual_seed(0))
    mask = TileWise(8).mask(scores, 0.75)
    rows = mask.any(1)
    assert int(rows.sum()) == 32
    assert mask[rows].float().mean() == 0.5
    tiles = mask[rows].reshape(4, 8, 96)
    assert torch.equal(tiles.any(1), tiles.all(1))


def test_planted_violations_are_found() -> None:
    shape = WeightShape((20, 12, 3, 3))
    [scores] = drawn([shape], 0, 1000)
    for pattern in (TileWise(8), TileWise(8, whole_rows=False), TileWise(8, per_tap=True)):
        weight = scores * pattern.mask(scores, 0.5)
        row, column, y, x = map(int, weight.nonzero()[40])
        weight[row, column, y, x] = 0
        assert pattern.verify(weight).violations.nonzero().tolist() == [[row, column, y, x]]


def test_a_planted_weight_makes_its_whole_column_wrong() -> None:
    [scores] = drawn([WeightShape((16, 12))], 0, 1000)
    pattern = TileWise(8, whole_rows=False)
    weight = scores * pattern.mask(scores, 0.5)
    row, column = map(int, (weight == 0).nonzero()[0])
    weight[row, column] = 1
    wrong = pattern.verify(weight).violations
    assert int(wrong.sum()) == 7 and wrong[:, column].sum() == 7 and not wrong[row, column]


@given(ROWS, FEW_OF_MANY, st.booleans(), st.booleans(), LAYERS, SPARSITIES, st.integers(0, 999), LARGEST)
def test_inside_tiles_n_of_m_stay(rows: int, few: tuple[int, int], whole_rows: bool, per_tap: bool, layers: list[WeightShape],
                                  asked: float, seed: int, largest: int) -> None:
    n, m = few
    pattern = TileVectorWise(rows, n, m, whole_rows, per_tap)
    sparsity = max(asked, float(pattern.inside.sparsity))
    scores = drawn(layers, seed, largest)
    masks = pattern.masks(scored(scores, layers), sparsity)
    first = 1 - (1 - max(exact_sparsity(asked), pattern.inside.sparsity)) * Fraction(m, n)
    tiled = tiled_by_hand(pattern.tile, first, layers, scores)
    for mask, outer, score, shape in zip(masks, tiled, scores, layers, strict=True):
        mask, outer, score = (three_axes(one, shape) for one in (mask, outer, score))
        assert not (mask & ~outer).any()
        for row in range(shape.rows):
            for tap in range(shape.taps):
                kept = outer[row, :, tap].nonzero().flatten().tolist()
                for group in (kept[at:at + m] for at in range(0, len(kept), m)):
                    values = [int(score[row, column, tap]) for column in group]
                    stay = [int(score[row, column, tap]) for column in group if mask[row, column, tap]]
                    assert sorted(values)[-n:] == sorted(stay)


@given(ROWS, st.booleans(), st.booleans(), LAYERS, SPARSITIES, st.integers(0, 999), LARGEST)
def test_an_order_keeps_as_many_weights_and_no_less(rows: int, whole_rows: bool, per_tap: bool, layers: list[WeightShape],
                                                    asked: float, seed: int, largest: int) -> None:
    """In each line as many as with neighbours, out of the columns that the tile kept, and as much or more by their scores."""
    plain, ordered = (TileVectorWise(rows, 2, 4, whole_rows, per_tap, choice) for choice in (False, True))
    scores = scored(drawn(layers, seed, largest), layers)
    for before, after, score in zip(*(pattern.masks(scores, max(asked, 0.5)) for pattern in (plain, ordered)), scores, strict=True):
        assert torch.equal(*(three_axes(mask, score.shape).sum(1) for mask in (before, after)))
        assert score.scores()[after].double().sum() >= score.scores()[before].double().sum() - 1e-9
        assert ordered.verify(after, score.shape.groups).clean


@pytest.mark.parametrize(("spread", "least"), [(0.0, 0.060), (0.5, 0.100)])
def test_what_an_order_saves(spread: float, least: float) -> None:
    """Of the magnitude that 2:4 takes from 128 rows × 384 columns of normal weights, columns alike or of sizes that differ."""
    generator = torch.Generator().manual_seed(0)
    scores = (torch.randn(128, 384, generator=generator) * torch.exp(spread * torch.randn(384, generator=generator))).abs()
    lost = [float(scores[~TileVectorWise(128, 2, 4, ordered=ordered).mask(scores, 0.5)].sum()) for ordered in (False, True)]
    assert lost[1] < (1 - least) * lost[0]


def test_vectors_need_their_share_at_least() -> None:
    with pytest.raises(PruneError, match=r"tvw:8:2:4 .* sparsity is 0\.5 or more, and can't be 0\.4"):
        TileVectorWise(8, 2, 4).mask(torch.rand(16, 16), 0.4)
    assert TileVectorWise(8, 2, 4).mask(torch.rand(16, 16), 0.5).sum() == 128
    for third in (2 / 3, 0.666667, 0.666666):
        assert TileVectorWise(8, 1, 3).mask(torch.rand(9, 9), third).sum() == 27


def test_too_full_groups_are_found() -> None:
    [scores] = drawn([WeightShape((16, 32))], 0, 1000)
    pattern = TileVectorWise(8, 2, 4)
    weight = scores * pattern.mask(scores, 0.75)
    assert pattern.verify(weight).clean
    row = int(weight.any(1).nonzero()[3])
    tile = next(tile for tile in pattern.tile.tiles(weight.any(1), WeightShape((16, 32))) if row in tile)
    first_four = weight[tile].any(0).nonzero().flatten()[:4]
    weight[row, first_four] = 1
    wrong = pattern.verify(weight).violations
    assert int(wrong.sum()) == 4 and wrong[row, first_four].all()


@given(st.integers(1, 2), st.integers(1, 3), st.integers(0, 2), st.integers(3, 8), st.integers(0, 2**24 - 1))
def test_whether_columns_can_be_grouped(rows: int, n: int, more: int, columns: int, bits: int) -> None:
    """Against all choices of columns: those that show a weight, and any of the others."""
    m = n + 1 + more
    marks = torch.tensor([bits >> at & 1 for at in range(rows * columns)], dtype=torch.bool).reshape(rows, columns)
    marks |= ~marks.any(1, keepdim=True)  # no row of zeros: it would be no part of a tile
    shown = set(marks.any(0).nonzero().flatten().tolist())
    hidden = sorted(set(range(columns)) - shown)
    fits = any(
        all(int(marks[:, chosen[at:at + m]].sum(1).max()) <= n for at in range(0, len(chosen), m))
        for count in range(len(hidden) + 1) for extra in combinations(hidden, count) for chosen in [sorted(shown | set(extra))])
    assert TileVectorWise(rows, n, m, whole_rows=False).verify(marks.float()).clean == fits


@given(ROWS, st.sampled_from([0.01, 0.1, 0.2]), st.booleans(), st.booleans(), LAYERS,
       st.sampled_from([0.0, 0.3, 0.5, 0.75]), st.integers(0, 999), LARGEST)
def test_the_best_are_restored(rows: int, delta: float, whole_rows: bool, per_tap: bool, layers: list[WeightShape],
                               sparsity: float, seed: int, largest: int) -> None:
    pattern = TileElementWise(rows, delta, whole_rows, per_tap)
    scores = drawn(layers, seed, largest)
    masks = pattern.masks(scored(scores, layers), sparsity)
    tiled = tiled_by_hand(pattern.tile, exact_sparsity(sparsity) + exact_sparsity(delta), layers, scores)
    taken = sorted((float(score), layer, at) for layer, (one, outer) in enumerate(zip(scores, tiled, strict=True))
                   for at, (score, kept) in enumerate(zip(one.flatten(), outer.flatten(), strict=True)) if not kept)
    gone = taken[:floor_share(sparsity, sum(shape.weights for shape in layers))]
    came = [(layer, at) for layer, mask in enumerate(masks) for at, kept in enumerate(mask.flatten()) if not kept]
    assert came == sorted((layer, at) for _, layer, at in gone)


def test_restoring_takes_room() -> None:
    with pytest.raises(PruneError, match=r"0.2 more than the sparsity first; 0.8 leaves no room"):
        TileElementWise(8, 0.2).mask(torch.rand(16, 16), 0.8)


@pytest.mark.parametrize("rows", [0, -1, 2.0, True, "8"])
def test_tiles_need_rows(rows: int) -> None:
    for make in (TileWise, lambda rows: TileVectorWise(rows, 2, 4), lambda rows: TileElementWise(rows, 0.1)):
        with pytest.raises(PruneError, match="positive whole number of rows"):
            make(rows)
