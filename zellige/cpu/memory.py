"""The arena: buffers that are alive at different times share memory.

A buffer lives from the first to the last call that names it. Calls between two barriers run at the same time. Buffers are
placed one after another, each at the lowest offset that is free all its life: a plan, not an allocator. No order of placing
them is best for every network, so a few are tried.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zellige.cpu.calls import Call
from zellige.cpu.layout import LINE, round_up

Life = tuple[int, int]
"""The first and the last phase in which a buffer is used."""


@dataclass(frozen=True)
class Arena:
    """Offsets of buffers and the size of them all, in elements; ``live`` is the largest total alive at once."""

    offsets: dict[str, int]
    elements: int
    live: int


def lifetimes(calls: list[Call]) -> dict[str, Life]:
    """The first and last phase in which each buffer is used; a barrier ends a phase."""
    life: dict[str, Life] = {}
    phase = 0
    for call in calls:
        for place in call.places():
            first, _ = life.get(place.buffer, (phase, phase))
            life[place.buffer] = (first, phase)
        phase += call.barrier
    return life


ORDERS: dict[str, Callable[[int, Life], int]] = {
    "largest first": lambda length, life: -length,
    "most memory × time first": lambda length, life: -length * (life[1] - life[0] + 1),
    "longest life first": lambda length, life: life[0] - life[1],
}
"""What buffers are sorted by before they are placed. The second gives ResNet-50 an arena as small as its live set; by the first it
is a tenth larger."""


def plan_memory(calls: list[Call], sizes: dict[str, int]) -> Arena:
    """Offsets for all buffers that calls use.

    Every buffer is followed by a cache line of slack, so that neighbours never share one.
    """
    life = lifetimes(calls)
    lengths = {name: round_up(sizes[name], LINE) + LINE for name in life}
    sorting = [{name: (key(lengths[name], life[name]), -lengths[name], life[name], name) for name in life}
               for key in ORDERS.values()]
    plans = [place(sorted(life, key=keys.__getitem__), life, lengths) for keys in sorting]
    offsets = min(plans, key=lambda offsets: extent(offsets, lengths))
    last = max((phase for _, phase in life.values()), default=-1)
    live = max((sum(lengths[name] for name, (begin, end) in life.items() if begin <= phase <= end)
                for phase in range(last + 1)), default=0)
    return Arena(offsets, extent(offsets, lengths), live)


def extent(offsets: dict[str, int], lengths: dict[str, int]) -> int:
    """Where the last buffer ends."""
    return max((offset + lengths[name] for name, offset in offsets.items()), default=0)


def place(order: list[str], life: dict[str, Life], lengths: dict[str, int]) -> dict[str, int]:
    """Buffers in this order, each at the lowest offset at which none lies that lives when it does."""
    offsets: dict[str, int] = {}
    for name in order:
        begin, end = life[name]
        neighbours = sorted((offsets[other], lengths[other]) for other in offsets
                            if life[other][0] <= end and begin <= life[other][1])
        offset = 0
        for start, length in neighbours:
            if offset + lengths[name] <= start:
                break
            offset = max(offset, start + length)
        offsets[name] = offset
    return offsets
