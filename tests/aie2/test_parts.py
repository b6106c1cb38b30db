"""Parts: every tap is summed once, with a part that has its group, and capacities are the least that allow it."""

from __future__ import annotations

import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from quantized_layers import quantized
from small_networks import Build

from zellige.aie2.device import DEVICES
from zellige.aie2.lowering.parts import deal, shared_out
from zellige.aie2.lowering.place import place
from zellige.aie2.lowering.tiling import choose
from zellige.aie2.overlay import overlay
from zellige.passes.scales import Scheme


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


@given(st.lists(cases(), min_size=4, max_size=4))
def test_a_capacity_is_that_of_a_row_in_all_passes(drawn):
    _, starts, size = drawn[0]
    groups = starts[-1] + size
    cells = [np.resize(taps, groups) for taps, _, _ in drawn]
    before = np.stack([np.concatenate([[0], taps.cumsum()]) for taps in cells]).reshape(2, 2, groups + 1)
    came = shared_out(before, np.array(starts), size)
    for row in range(2):
        alone = [shared_out(before[number : number + 1, row : row + 1], np.array(starts), size)[0, 0] for number in range(2)]
        assert came[:, row].max() == max(parts.max() for parts in alone)
        assert came[:, row].sum(axis=1).tolist() == [parts.sum() for parts in alone]


def test_a_linear_layer_of_very_many_inputs_needs_little_memory():
    """VGG-16's first has 3136 groups of them. What is held grows with parts, and not with their square: that would be gigabytes."""
    b, random = Build(1, 25088), np.random.default_rng(0)
    blocks = np.kron(random.random((8, 3136)) < 0.5, np.ones((8, 8)))
    weight = b.constant(random.standard_normal((64, 25088)) * blocks)
    graph = quantized(b.done(b("linear", b.x, weight)), Scheme(powers_of_two=True, rows=8))
    (phase,) = place(graph).phases
    tracemalloc.start()
    choose(phase, overlay(DEVICES["ve2802"], 4, 4), free=True)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 100e6
