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

from zellige.aie2.lowering.chains import Chain, numbered
from zellige.aie2.lowering.descriptors import shares
from zellige.aie2.lowering.streams import Effect, Stream
from zellige.aie2.overlay import Overlay
from zellige.aie2.program import Await, Channel, Descriptor, Start, Task, Tile
from zellige.errors import CompileError


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
    after: tuple[tuple[str, Effect], ...]
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
        self._effects: dict[tuple[str, Effect], list[str]] = {}
        """Tasks, by their phase and what others may wait for."""
        self._named: Counter[str] = Counter()
        self._phases: list[_Phase] = []

    def phase(self, name: str, streams: Sequence[Stream], after: Iterable[tuple[str, Effect]], ready: float) -> None:
        """Add a phase that waits for what phases do (``after``), and from whose step ``ready`` on the next one's packets start."""
        self._phases.append(_Phase(name, streams, tuple(after), ready))

    def finish(self) -> None:
        """Start everything, and wait for all results."""
        for phase, following in zip(self._phases, (*self._phases[1:], None), strict=False):
            self._do(phase, following)
        for (_, effect), tasks in self._effects.items():
            for task in tasks if effect == "host" else ():
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
                    for task in self._effects.get(earlier, ()):
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
        if stream.effect is not None:
            self._effects.setdefault((phase, stream.effect), []).append(name)

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
