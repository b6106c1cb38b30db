"""Chains of descriptors that move one object after another: from sizes and orders of objects to what tasks do.

A *chain* is a task before it has numbers: descriptors one after another, repeated. Objects that go through rings take their slots
in turn, over the whole program, so a ring that has seen an odd number of them goes on with the other slot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
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
class Visits:
    """Places of a host buffer (bytes), one after another, and the pattern that is moved at each."""

    buffer: str
    offsets: tuple[int, ...]
    dimensions: Dimensions


def runs(streams: Sequence[Visits], most: int, first: float, each: float) -> list[Chain]:
    """Chains of at most ``most`` descriptors that make the visits of all streams, one of each in turn, in few tasks; steps are
    counted from ``first`` on, ``each`` for a turn."""
    found, at, total = [], 0, len(streams[0].offsets)
    while at < total:
        length, count, repeat = _longest([one.offsets[at:] for one in streams], most // len(streams))
        descriptors: list[Descriptor] = []
        for turn in range(length):
            for one in streams:
                stride = one.offsets[at + length + turn] - one.offsets[at + turn] if count > 1 else 0
                descriptors.append(Descriptor(len(descriptors), one.buffer, one.offsets[at + turn], one.dimensions,
                                              advance=(count, stride // WORD) if stride else (1, 0)))
        found.append(Chain(first + each * at, tuple(descriptors), repeat))
        at += length * repeat
    return found


def _longest(streams: Sequence[Sequence[int]], most: int) -> tuple[int, int, int]:
    """The chain that does most of what comes next: turns in it, how far it advances before it begins again, how often it is
    done."""
    best = (0, 0, 0)
    for length in range(1, min(most, len(streams[0])) + 1):
        count = _alike(streams, length, 1, ADVANCE_MOST, None)
        repeat = _alike(streams, length, count, REPEAT_MOST, count)
        if length * repeat > best[0] * best[2]:
            best = (length, count, repeat)
    return best


def _alike(streams: Sequence[Sequence[int]], length: int, first: int, most: int, period: int | None) -> int:
    """How often a chain of ``length`` turns goes where the streams do: always a stride further, or beginning again after
    ``period``."""
    time = first
    while time < most and (time + 1) * length <= len(streams[0]):
        further = time if period is None else time % period
        for one in streams:
            for turn in range(length):
                stride = one[length + turn] - one[turn] if period != 1 else 0
                if stride < 0 or one[time * length + turn] != one[turn] + further * stride:
                    return time
        time += 1
    return time


def numbered(chain: Chain, numbers: Sequence[int]) -> tuple[Descriptor, ...]:
    """The descriptors of a chain with numbers of their own."""
    return tuple(replace(one, number=number) for one, number in zip(chain.descriptors, numbers, strict=True))
