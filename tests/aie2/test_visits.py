"""Visits: chains make all of them, in their order, whatever they are."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from zellige.aie2.device import ADVANCE_MOST, REPEAT_MOST
from zellige.aie2.lowering.chains import Chain, Visit, evenly, runs

KINDS = [Visit("a", 0, ((4, 1),)), Visit("a", 0, ((2, 8), (2, 1))), Visit("b", 0, ((4, 1),), packet=1),
         Visit("b", 0, ((4, 1),), None, "empty", "full")]


@st.composite
def visits(draw: st.DrawFn) -> list[Visit]:
    """Places that go on regularly for a while, begin again, or don't."""
    found: list[Visit] = []
    for _ in range(draw(st.integers(1, 4))):
        turn = draw(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 9), st.integers(-1, 3)), min_size=1, max_size=4))
        count, times = draw(st.integers(1, 70)), draw(st.integers(1, 5))
        again = [replace(kind, offset=100 + 4 * (start + step * at)) for at in range(count) for kind, start, step in turn]
        found += (again * times)[: draw(st.integers(1, 400))]
    return found


def made(chain: Chain) -> list[Visit]:
    """The visits of a chain, one by one."""
    found = []
    for turn in range(chain.repeat):
        for one in chain.descriptors:
            count, stride = one.advance
            offset = one.offset + 4 * (turn % count) * stride
            found.append(Visit(one.buffer, offset, one.dimensions, one.packet, one.acquire, one.release))
    return found


@given(visits(), st.integers(1, 5))
def test_every_visit_is_made_in_its_order(due: list[Visit], most: int) -> None:
    chains = runs(due, most, evenly(3.0, 0.5))
    assert [visit for chain in chains for visit in made(chain)] == due
    at = 0
    for chain in chains:
        assert chain.position == 3.0 + 0.5 * at
        assert 1 <= len(chain.descriptors) <= most and 1 <= chain.repeat <= REPEAT_MOST
        for number, one in enumerate(chain.descriptors):
            assert one.number == number and 1 <= one.advance[0] <= min(ADVANCE_MOST, chain.repeat) and one.advance[1] >= 0
        at += len(made(chain))


def test_what_is_regular_is_one_chain() -> None:
    grid = [replace(KINDS[0], offset=1000 * y + 16 * x) for _ in range(3) for y in range(4) for x in range(2)]
    (chain,) = runs(grid, 2, evenly(0.0, 1.0))
    assert chain.repeat == 12 and [one.advance for one in chain.descriptors] == [(4, 250)] * 2
