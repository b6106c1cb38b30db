"""Parts: every tap is summed once, with a part that has its group, and capacities are the least that allow it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zellige.aie2.lowering.parts import deal, shared_out


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, list[int], int]:
    """Taps of input groups, for one cell; where parts begin, and their groups."""
    groups = draw(st.integers(1, 9))
    size = draw(st.integers(1, groups))
    apart = draw(st.integers(-(-size // 2), size))
    taps = draw(st.lists(st.integers(0, 6), min_size=groups, max_size=groups))
    return np.array(taps), list(range(0, groups - size + apart, apart)), size


def served(taps: np.ndarray, starts: list[int], size: int, capacity: int) -> list[int] | None:
    """Taps of each part, taken one by one, earliest deadline first; ``None`` if one comes too late."""
    left, found = taps.copy(), []
    for number, start in enumerate(starts):
        end = starts[number + 1] if number + 1 < len(starts) else len(taps)
        room = capacity
        for group in range(min(start + size, len(taps))):
            now = min(room, int(left[group]))
            assert not now or group >= start
            left[group] -= now
            room -= now
        found.append(capacity - room)
        if left[:end].any():
            return None
    return found


@given(cases())
def test_capacities_are_the_least_and_all_taps_are_taken(case):
    taps, starts, size = case
    before = np.concatenate([[0], taps.cumsum()])[None, None]
    came = shared_out(before, np.array(starts), size)[0, 0]
    least = next(capacity for capacity in range(int(taps.sum()) + 1) if served(taps, starts, size, capacity) is not None)
    assert came.max(initial=0) <= least
    assert came.tolist() == served(taps, starts, size, least)
    assert came.sum() == taps.sum()


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.integers(1, 8))
def test_groups_are_dealt_once_each(totals, groups):
    assert sorted(deal(totals, groups)) == list(range(len(totals)))


@given(st.integers(0, 2**16))
def test_cells_are_nearly_alike(seed):
    totals = np.random.default_rng(seed).binomial(64, 0.5, 64)
    cells = totals[list(deal(totals.tolist(), 4))].reshape(16, 4).sum(axis=1)
    assert cells.max() <= 1.04 * cells.mean()
