"""The arena: buffers that are alive together never overlap, and memory is reused."""

from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zellige.cpu.calls import Call, Place
from zellige.cpu.kernels.peak import PeakKernel
from zellige.cpu.memory import extent, lifetimes, place, plan_memory

NAMES = "abcdefgh"


def call_on(names: set[str], barrier: bool) -> Call:
    return Call(PeakKernel(), {f"slot{n}": Place(n) for n in sorted(names)}, np.ones(1), "test", barrier)


names = st.sets(st.sampled_from(NAMES), min_size=1, max_size=3)
calls = st.lists(st.builds(call_on, names, st.booleans()), min_size=1, max_size=12)
sizes = st.fixed_dictionaries({name: st.integers(1, 500) for name in NAMES})


def alive_together(calls: list[Call]) -> set[tuple[str, str]]:
    """Brute force: phase by phase, what has been used and will be used."""
    phases: list[set[str]] = [set()]
    for call in calls:
        phases[-1] |= {place.buffer for place in call.places()}
        if call.barrier:
            phases.append(set())
    pairs = set()
    for now in range(len(phases)):
        alive = {name for name in NAMES if any(name in phase for phase in phases[:now + 1])
                 and any(name in phase for phase in phases[now:])}
        pairs |= set(combinations(sorted(alive), 2))
    return pairs


@given(calls, sizes)
def test_buffers_that_live_together_never_overlap(calls: list[Call], sizes: dict[str, int]) -> None:
    arena = plan_memory(calls, sizes)
    assert set(arena.offsets) == set(lifetimes(calls))
    for left, right in alive_together(calls):
        low, high = sorted((left, right), key=arena.offsets.__getitem__)
        assert arena.offsets[low] + sizes[low] <= arena.offsets[high]
    assert all(arena.offsets[name] + sizes[name] <= arena.elements for name in arena.offsets)
    assert arena.live <= arena.elements


@given(calls, sizes)
def test_the_smallest_of_several_placements(calls: list[Call], sizes: dict[str, int]) -> None:
    arena, life = plan_memory(calls, sizes), lifetimes(calls)
    lengths = {name: -(-sizes[name] // 16) * 16 + 16 for name in life}
    first = place(sorted(life, key=lambda name: (-lengths[name], life[name], name)), life, lengths)
    assert arena.elements <= extent(first, lengths)
    assert arena.elements >= arena.live


def test_an_order_that_is_better_than_the_largest_first() -> None:
    """Largest first, `a` and `c` take the place beside `b`, and `d`, which lives with both sides, comes on top."""
    steps = [{"a", "b"}, {"b", "d"}, {"b", "d"}, {"c", "d"}]
    lengths = {"a": 48, "b": 48, "c": 48, "d": 32}
    arena = plan_memory([call_on(names, True) for names in steps], lengths)
    assert arena.elements == arena.live == 2 * (48 + 16)


def test_a_chain_of_layers_needs_two_buffers() -> None:
    chain = [call_on({left, right}, True) for left, right in zip("abcdefg", "bcdefgh", strict=True)]
    arena = plan_memory(chain, dict.fromkeys(NAMES, 1000))
    assert arena.elements <= 2 * 1024 + 32
