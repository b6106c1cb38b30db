"""The arena: buffers that are alive at different times share memory.

A buffer lives from the first to the last call that names it. Calls between two barriers run at the same time. Larger
buffers are placed first, each at the lowest offset that is free all its life: a plan, not an allocator.
"""

from __future__ import annotations

from dataclasses import dataclass

from zellige.cpu.calls import Call
from zellige.cpu.layout import LINE, round_up


@dataclass(frozen=True)
class Arena:
    """Offsets of buffers and the size of them all, in elements; ``live`` is the largest total alive at once."""

    offsets: dict[str, int]
    elements: int
    live: int


def lifetimes(calls: list[Call]) -> dict[str, tuple[int, int]]:
    """The first and last phase in which each buffer is used; a barrier ends a phase."""
    life: dict[str, tuple[int, int]] = {}
    phase = 0
    for call in calls:
        for place in call.places():
            first, _ = life.get(place.buffer, (phase, phase))
            life[place.buffer] = (first, phase)
        phase += call.barrier
    return life


def plan_memory(calls: list[Call], sizes: dict[str, int]) -> Arena:
    """Offsets for all buffers that calls use.

    Every buffer is followed by a cache line of slack, so that neighbours never share one.
    """
    life = lifetimes(calls)
    lengths = {name: round_up(sizes[name], LINE) + LINE for name in life}
    offsets: dict[str, int] = {}
    for name in sorted(life, key=lambda name: (-lengths[name], life[name], name)):
        begin, end = life[name]
        neighbours = sorted((offsets[other], lengths[other]) for other in offsets
                            if life[other][0] <= end and begin <= life[other][1])
        offset = 0
        for place, length in neighbours:
            if offset + lengths[name] <= place:
                break
            offset = max(offset, place + length)
        offsets[name] = offset
    last = max((phase for _, phase in life.values()), default=-1)
    live = max((sum(lengths[name] for name, (begin, end) in life.items() if begin <= phase <= end)
                for phase in range(last + 1)), default=0)
    return Arena(offsets, max((offsets[name] + lengths[name] for name in offsets), default=0), live)
