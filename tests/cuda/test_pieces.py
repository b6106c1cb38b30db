"""Every step of every tile is in one piece, and splitting shortens what it is meant to shorten."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zellige.cuda.tiling.pieces import CARRIED, FEWEST_STEPS, PARTS, best_count, counts_of_parts, plan_pieces, span

LENGTHS = st.builds(list.__add__, st.lists(st.integers(1, 40), max_size=12), st.lists(st.just(0), max_size=40)).filter(len)
"""Steps of the tiles of a weight; those without any come last."""


@given(LENGTHS, st.integers(1, 20), st.integers(1, 300))
def test_pieces_cover_every_tile_once(lengths: list[int], blocks: int, places: int) -> None:
    starts = tuple(np.cumsum([0, *lengths]).tolist())
    pieces = plan_pieces(starts, best_count(starts, blocks, places))
    assert (np.diff(pieces[:, 2]) <= 0).all()  # longest first
    carried = [tile for piece in pieces for tile in range(piece[6], piece[7])]
    assert len(set(carried)) == len(carried) and not any(lengths[tile] for tile in carried)
    assert (pieces[:, 7] - pieces[:, 6] <= CARRIED).all()
    homes = []
    for tile, (first, length) in enumerate(zip(starts, lengths, strict=False)):
        own = sorted(pieces[pieces[:, 0] == tile].tolist(), key=lambda piece: piece[3])
        assert bool(own) != (tile in carried)
        assert [piece[3] for piece in own] == list(range(len(own))) and {piece[4] for piece in own} <= {len(own)}
        ends = [first]
        for _, begin, steps, *_ in own:
            assert begin == ends[-1]
            ends.append(begin + steps)
        assert ends[-1] == first + length
        if len(own) > 1:
            assert min(piece[2] for piece in own) >= FEWEST_STEPS and len({piece[5] for piece in own}) == 1
            homes += [piece[5] + piece[3] for piece in own]
    assert sorted(homes) == list(range(len(homes)))  # no two parts leave their sums in one place


@given(LENGTHS, st.integers(1, 8), st.integers(1, 50))
def test_span_is_at_least_what_the_work_and_the_longest_item_take(lengths: list[int], blocks: int, places: int) -> None:
    taken = span(lengths, 1, blocks, places)
    assert taken >= max(lengths, default=0) and taken * places >= sum(lengths) * blocks


def test_few_long_tiles_are_split_and_many_are_not() -> None:
    assert best_count((0, 64), 1, 132) == 8 == len(plan_pieces((0, 64), 8))
    assert best_count(tuple(range(0, 65 * 64, 64)), 64, 132) == 1


@given(LENGTHS)
def test_few_plans_serve_any_number_of_tokens(lengths: list[int]) -> None:
    """Counts of parts that are left out would cut tiles as others do, and those that are there all differ."""
    starts = tuple(np.cumsum([0, *lengths]).tolist())
    plans = {parts: plan_pieces(starts, parts).tobytes() for parts in PARTS}
    kept = counts_of_parts(starts)
    assert len({plans[parts] for parts in kept}) == len(kept) and {plans[parts] for parts in kept} == set(plans.values())


@given(LENGTHS, st.integers(1, 40), st.integers(1, 300))
def test_no_other_count_is_done_sooner(lengths: list[int], blocks: int, places: int) -> None:
    starts = tuple(np.cumsum([0, *lengths]).tolist())
    busy = [length for length in lengths if length]
    taken = span(busy, best_count(starts, blocks, places), blocks, places)
    assert taken == min(span(busy, parts, blocks, places) for parts in PARTS)
