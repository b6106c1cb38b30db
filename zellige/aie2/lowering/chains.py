"""Chains of descriptors that move one object after another: from sizes and orders of objects to what tasks do.

A *chain* is a task before it has numbers: descriptors one after another, repeated. Objects that go through rings take their slots
in turn, over the whole program, so a ring that has seen an odd number of them goes on with the other slot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from zellige.aie2.device import ADVANCE_MOST, REPEAT_MOST, WORD, TileKind
from zellige.aie2.overlay import DEPTH
from zellige.aie2.program import Descriptor
from zellige.errors import CompileError

Dimensions = tuple[tuple[int, int], ...]
"""Sizes and strides, outermost first; in words."""

@dataclass(frozen=True)
class Chain:
    """Descriptors, whose numbers count from 0, done ``repeat`` times; ``position`` is the step of its phase in which it begins."""

    position: float
    descriptors: tuple[Descriptor, ...]
    repeat: int = 1


@dataclass(frozen=True)
class Move:
    """A part of an object that goes out of a slot: where it begins (bytes), its pattern, and the number of the packets it goes
    in."""

    offset: int
    dimensions: Dimensions
    packet: int | None = None


@dataclass(frozen=True)
class Object:
    """One object of a ring: the moves that bring it, or take it away. ``apart``: the ring is one buffer, with its slots so many
    bytes apart; else each slot is a buffer."""

    ring: str
    moves: tuple[Move, ...]
    apart: int = 0


def linear(size: int) -> Dimensions:
    """So many bytes side by side."""
    return ((size // WORD, 1),)


def pattern(dimensions: Iterable[tuple[int, int]], kind: TileKind) -> Dimensions:
    """(Size, stride in bytes) of units of 8 bytes, outermost first, as a descriptor of that kind of tile may have them.

    Raises ``CompileError`` if it can't.

    >>> from zellige.aie2.device import KINDS
    >>> pattern([(3, 640), (2, 80), (4, 8)], KINDS["shim"]), pattern([(3, 160), (2, 80), (10, 8)], KINDS["shim"])
    (((3, 160), (2, 20), (8, 1)), ((120, 1),))
    """
    words = [(size, stride // WORD) for size, stride in dimensions] + [(2, 1)]
    free, kept = _merged(words, None), _merged(words, kind.sizes)
    found = free if len(free) == 1 else kept
    inner = found[1:] if len(found) > 1 else []
    if len(found) > kind.dimensions or any(size > kind.sizes for size, _ in inner) or any(step > kind.strides for _, step in found):
        raise CompileError(f"no descriptor has the pattern {' '.join(f'{size}:{step}' for size, step in found)}: there are "
                           f"{kind.dimensions} dimensions of at most {kind.sizes}, with strides of at most {kind.strides} words")
    return tuple(found)


def _merged(words: Sequence[tuple[int, int]], most: int | None) -> list[tuple[int, int]]:
    """Dimensions that go on where the inner one ends, joined, to at most so many words."""
    found: list[tuple[int, int]] = []
    for size, stride in reversed(words):
        if size == 1:
            continue
        if found and stride == found[0][0] * found[0][1] and (most is None or size * found[0][0] <= most):
            found[0] = (size * found[0][0], found[0][1])
        else:
            found.insert(0, (size, stride))
    return found or [(1, 1)]


class Turns:
    """Whose turn it is of each ring's slots."""

    def __init__(self) -> None:
        self._seen: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
        """Objects of every ring: filled (``True``), emptied."""

    def chains(self, fills: bool, cycles: Iterable[tuple[Sequence[Object], int, float, float]]) -> list[Chain]:
        """The chains of a channel that fills slots or empties them. Each cycle is objects, how often they come, the step in which
        the first of them does, and steps for each time."""
        return [chain for objects, times, position, each in cycles if objects and times
                for chain in self._cycle(objects, times, fills, position, each)]

    def take(self, ring: str, fills: bool) -> int:
        """The slot of a ring that is next, for an object that is filled or emptied otherwise than by ``chains``."""
        self._seen[fills][ring] += 1
        return (self._seen[fills][ring] - 1) % DEPTH

    def _cycle(self, objects: Sequence[Object], times: int, fills: bool, position: float, each: float) -> list[Chain]:
        if len(objects) == 1 and objects[0].apart:
            return self._advancing(objects[0], times, fills, position, each)
        period = 1 if all(count % DEPTH == 0 for count in Counter(one.ring for one in objects).values()) else DEPTH
        turns, left = divmod(times, period)
        found = []
        if turns:
            descriptors = self._descriptors(list(objects) * period, fills)
            found += [Chain(position + each * period * first, descriptors, min(REPEAT_MOST, turns - first))
                      for first in range(0, turns, REPEAT_MOST)]
        if left:
            found.append(Chain(position + each * period * turns, self._descriptors(objects, fills)))
            self._seen[fills].update(one.ring for one in objects)
        return found

    def _advancing(self, one: Object, times: int, fills: bool, position: float, each: float) -> list[Chain]:
        """Chains for an object of a ring that is one buffer: from the first slot on they advance through all."""
        found, done, seen = [], 0, self._seen[fills]
        while done < times:
            at = seen[one.ring] % DEPTH
            repeat = min(REPEAT_MOST, times - done) if at == 0 else 1
            further = (DEPTH, one.apart // WORD) if repeat > 1 else (1, 0)
            descriptors = tuple(replace(descriptor, advance=further) for descriptor in self._descriptors([one], fills))
            found.append(Chain(position + each * done, descriptors, repeat))
            seen[one.ring] += repeat
            done += repeat
        return found

    def _descriptors(self, objects: Sequence[Object], fills: bool) -> tuple[Descriptor, ...]:
        """Of objects one after another, from the slots on whose turn it is. The first move of each waits for its slot, the last
        gives it on. Leaves whose turn it is: repeated whole, they return to where they began."""
        seen, found = self._seen[fills].copy(), list[Descriptor]()
        for one in objects:
            at = seen[one.ring] % DEPTH
            slot, start = (one.ring, at * one.apart) if one.apart else (f"{one.ring}.{at}", 0)
            seen[one.ring] += 1
            waits, gives = (f"{one.ring}.{word}" for word in (("empty", "full") if fills else ("full", "empty")))
            for number, move in enumerate(one.moves):
                found.append(Descriptor(len(found), slot, start + move.offset, move.dimensions, waits if number == 0 else None,
                                        gives if number == len(one.moves) - 1 else None, move.packet))
        return tuple(found)


@dataclass(frozen=True)
class Visit:
    """One transfer at a place of its own: from ``offset`` (bytes) of a buffer on. What else a descriptor says is as in
    ``program.py``."""

    buffer: str
    offset: int
    dimensions: Dimensions
    packet: int | None = None
    acquire: str | None = None
    release: str | None = None

    def like(self, other: Visit) -> bool:
        """Whether both are the same, elsewhere."""
        return (self.dimensions == other.dimensions and self.buffer == other.buffer and self.packet == other.packet
                and self.acquire == other.acquire and self.release == other.release)


def runs(visits: Sequence[Visit], most: int, step: Callable[[int], float], together: int = 1) -> list[Chain]:
    """Chains of at most ``most`` descriptors that make all visits in their order, in few tasks. ``step``: in which a visit is due,
    by its number. So many visits that follow one another are ``together`` in one chain."""
    found, at = [], 0
    while at < len(visits):
        repeat, series = _longest(visits, at, most, together)
        descriptors = (
            Descriptor(number, one.buffer, one.offset, one.dimensions, one.acquire, one.release, one.packet,
                       (min(count, repeat), stride // WORD) if stride and repeat > 1 else (1, 0))
            for number, (one, (count, stride)) in enumerate(zip(visits[at:], series, strict=False)))  # fmt: skip
        found.append(Chain(step(at), tuple(descriptors), repeat))
        at += len(series) * repeat
    return found


Series = tuple[int, int]
"""What a descriptor advances through, and by how many bytes."""


def _longest(visits: Sequence[Visit], at: int, most: int, together: int) -> tuple[int, list[Series]]:
    """The chain that does most of what comes next: how often it is done, and how its descriptors advance."""
    best: tuple[int, list[Series]] = (0, [])
    for length in range(together, min(most, len(visits) - at) + 1, together):
        found = [_series(visits, at + turn, length) for turn in range(length)]
        repeat = min(times for times, _ in found)
        if length * repeat > len(best[1]) * best[0]:
            best = (repeat, [series for _, series in found])
    return best


def _series(visits: Sequence[Visit], at: int, length: int) -> tuple[int, Series]:
    """How often one descriptor makes every ``length``-th visit from one on: always a stride further, or beginning again at some
    time."""
    start, times, stride, period = visits[at], 1, 0, 0
    while times < REPEAT_MOST and at + times * length < len(visits):
        one = visits[at + times * length]
        further = one.offset - start.offset
        if not one.like(start) or further < 0:
            break
        if times == 1:
            stride = further
        if not period and stride and (not further or times == ADVANCE_MOST):
            period = times
        if further != (times % period if period else times) * stride:
            break
        times += 1
    return times, (period or times, stride)


def evenly(first: float, each: float) -> Callable[[int], float]:
    """Steps of visits, so many for each, from one on."""
    return lambda visit: first + each * visit


def numbered(chain: Chain, numbers: Sequence[int]) -> tuple[Descriptor, ...]:
    """The descriptors of a chain with numbers of their own."""
    return tuple(replace(one, number=number) for one, number in zip(chain.descriptors, numbers, strict=True))
