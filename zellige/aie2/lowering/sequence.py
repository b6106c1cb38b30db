"""From chains to tasks and the sequence that starts them.

Chains get descriptor numbers of their channel's share; numbers are used again when the sequence knows that the task which had them
is done, or at once for descriptors that are the same. Tasks start in the order of the steps in which they begin: whoever waits for
one then waits for work that has all been started, so nothing can get stuck. What a phase doesn't read from host memory starts
before the phases that it depends on are done; its first packets even while the phase before is at work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from zellige.aie2.device import KINDS
from zellige.aie2.lowering.chains import Chain, numbered
from zellige.aie2.lowering.streams import Stream
from zellige.aie2.overlay import ROWS_PER_MEMORY, Overlay
from zellige.aie2.program import Await, Channel, Descriptor, Start, Task, Tile
from zellige.errors import CompileError

SHIM = 4
"""Descriptors of each channel of a shim."""

CORE = {("in", 0): range(0, 8), ("in", 1): range(8, 12), ("out", 0): range(12, 16)}


def shares(on: Overlay, tile: Tile) -> Mapping[tuple[str, int], range]:
    """The descriptor numbers of a tile's channels."""
    kind = on.device.kind(tile.row)
    if kind == "shim":
        return {(direction, number): range(4 * at, 4 * at + SHIM) for at, (direction, number) in
                enumerate((("out", 0), ("out", 1), ("in", 0), ("in", 1)))}
    if kind == "core":
        return CORE
    half, first = KINDS["memory"].descriptors // 2, tile.row == 1
    results = 2 * min(on.rows, ROWS_PER_MEMORY)
    even = {("in", 0): 2, ("in", 2): 2, ("in", 4): 2, ("out", 2): results, ("out", 0): half - 6 - results}
    odd = {("in", 1): 4, ("in", 3): 2, ("in", 5): 2, ("out", 1): half - 8}
    if on.paired:
        even, odd = {**even, ("in", 2): 4, ("in", 4): 0}, {**odd, ("in", 3): 4, ("in", 5): 0}
    if not first:
        even, odd = {("in", 0): 4, ("in", 2): 4, ("out", 0): 16}, {("in", 1): 4, ("in", 3): 4}
    return {**_laid(even, 0), **_laid(odd, half)}


def _laid(counts: Mapping[tuple[str, int], int], first: int) -> dict[tuple[str, int], range]:
    found = {}
    for channel, count in counts.items():
        found[channel] = range(first, first + count)
        first += count
    return found


@dataclass
class _Used:
    """What a descriptor number of a tile was last: the descriptor, and its task."""

    descriptor: Descriptor
    task: str


@dataclass(frozen=True, eq=False)
class _Due:
    """A chain that is to be started when its turn comes at a step."""

    position: float
    phase: str
    chain: Chain
    stream: Stream


@dataclass(frozen=True, eq=False)
class _Phase:
    """What ``Starts.phase`` was given."""

    name: str
    streams: Sequence[Stream]
    after: tuple[str, ...]
    ready: float

    @cached_property
    def chains(self) -> list[_Due]:
        return [_Due(chain.position, self.name, chain, stream) for stream in self.streams for chain in stream.chains]

    @cached_property
    def ahead(self) -> list[_Due]:
        """Those that start while the phase before is at work."""
        return [one for one in self.chains if one.stream.ahead and one.position == 0]


class Starts:
    """The tasks and the sequence, as phase after phase is added."""

    def __init__(self, on: Overlay) -> None:
        self.on = on
        self.tasks: dict[str, Task] = {}
        self.steps: list[Start | Await] = []
        self._shares: dict[Tile, Mapping[tuple[str, int], range]] = {}
        self._used: dict[tuple[Tile, int], _Used] = {}
        self._next: dict[Channel, int] = {}
        self._known: set[str] = set()
        self._givers: dict[str, list[str]] = {}
        self._named: Counter[str] = Counter()
        self._phases: list[_Phase] = []

    def phase(self, name: str, streams: Sequence[Stream], after: Iterable[str], ready: float) -> None:
        """Add a phase that reads what the phases ``after`` write, and from whose step ``ready`` on the next one's packets start."""
        self._phases.append(_Phase(name, streams, tuple(after), ready))

    def finish(self) -> None:
        """Start everything, and wait for all results."""
        for phase, following in zip(self._phases, (*self._phases[1:], None), strict=False):
            self._do(phase, following)
        for tasks in self._givers.values():
            for task in tasks:
                self._await(task)

    def _do(self, phase: _Phase, following: _Phase | None) -> None:
        begun = phase.ahead if phase is not self._phases[0] else []
        due = [one for one in phase.chains if one not in begun]
        if following is not None:
            last = max((one.position for one in due if one.stream.ahead), default=0.0)
            due += [replace(one, position=max(last, phase.ready)) for one in following.ahead]
        due.sort(key=lambda one: (one.position, one.stream.needs))
        for early in (True, False):
            if not early:
                for earlier in phase.after:
                    for task in self._givers[earlier]:
                        self._await(task)
            for one in due:
                if early == (one.position == 0 and not one.stream.needs):
                    self._start(one.phase, one.chain, one.stream)

    def _start(self, phase: str, chain: Chain, stream: Stream) -> None:
        numbers = self._numbers(chain, stream.channel)
        name = f"{phase}/{stream.what}"
        self._named[name] += 1
        name += f" {self._named[name]}" if self._named[name] > 1 else ""
        self.tasks[name] = Task(name, stream.channel, numbered(chain, numbers), chain.repeat)
        self.steps.append(Start(name))
        for one in self.tasks[name].descriptors:
            self._used[(stream.channel.tile, one.number)] = _Used(one, name)
        if stream.gives:
            self._givers.setdefault(phase, []).append(name)

    def _numbers(self, chain: Chain, channel: Channel) -> list[int]:
        """Numbers for a chain, free or freed by waiting."""
        tile = channel.tile
        if tile not in self._shares:
            self._shares[tile] = shares(self.on, tile)
        share = self._shares[tile][(channel.direction, channel.number)]
        size = len(chain.descriptors)
        if size > len(share):
            raise CompileError(f"{channel} has {len(share)} descriptors; a chain of it would need {size}")
        first = self._next.get(channel, 0)
        if (same := self._same(chain, tile, share)) is not None:
            return same
        numbers = [share[(first + at) % len(share)] for at in range(size)]
        self._next[channel] = (first + size) % len(share)
        for number in numbers:
            used = self._used.get((tile, number))
            if used is not None:
                self._await(used.task)
        return numbers

    def _same(self, chain: Chain, tile: Tile, share: range) -> list[int] | None:
        """The numbers that hold just these descriptors, if any do."""
        if any(one.advance != (1, 0) for one in chain.descriptors):
            return None
        found = []
        for one in chain.descriptors:
            number = next((number for number in share if (tile, number) in self._used
                           and self._used[(tile, number)].descriptor == replace(one, number=number)), None)
            if number is None or number in found:
                return None
            found.append(number)
        return found

    def _await(self, task: str) -> None:
        if task not in self._known:
            self._known.add(task)
            self.steps.append(Await(task))
