"""Deadlock: nothing is due any more, and something is left to do. Who waits for whom is a graph; a cycle in it is the reason, or a
chain that ends where nobody will come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zellige.aie2.program import Instruction, Program, Release, Repeat
from zellige.aie2.simulate.channel import ChannelState, Stream, TaskRun
from zellige.aie2.simulate.core import CoreState
from zellige.aie2.simulate.process import LockState, Process
from zellige.aie2.simulate.sequence import SequenceState
from zellige.errors import DeadlockError

Wait = tuple[str, list[Process]]
"""What a process waits for, in words, and who could let it go on."""


def refuse_deadlock(program: Program, sequence: SequenceState, channels: Sequence[ChannelState], cores: Sequence[CoreState],
                    cycle: float) -> None:  # fmt: skip
    """Raises ``DeadlockError`` if anything is left to do."""
    pending: list[Process] = [] if sequence.ended else [sequence]
    pending += [one for one in channels if one.current is not None or one.queue]
    pending += [one for one in cores if one.waits is not one.rings["weights"].full]
    if not pending:
        return
    releasers = _releasers(program, channels, cores)
    waits = {id(one): _wait(one, sequence, releasers) for one in (sequence, *channels, *cores)}
    path = _cycle(pending, waits) or _chain(pending[0], waits)
    lines = [f"{one.name} {waits[id(one)][0]}" for one in path]
    what = f"deadlock: after {cycle:.0f} cycles nothing can go on"
    raise DeadlockError("\n  ".join([what, *lines, _position(program, sequence)]))


def _releasers(program: Program, channels: Sequence[ChannelState], cores: Sequence[CoreState]) -> dict[str, list[Process]]:
    """By the name of a lock: who releases it, ever."""
    found: dict[str, list[Process]] = {}
    by_channel = {one.channel: one for one in channels}
    for task in program.tasks.values():
        for descriptor in task.descriptors:
            if descriptor.release is not None:
                found.setdefault(descriptor.release, []).append(by_channel[task.channel])
    for core in cores:
        for name in _released(core.core.program):
            ring, _, which = name.partition(".")
            found.setdefault(getattr(getattr(core.core, ring), which), []).append(core)
    return {name: list(dict.fromkeys(who)) for name, who in found.items()}


def _released(program: tuple[Instruction, ...]) -> list[str]:
    found = []
    for one in program:
        found += _released(one.body) if isinstance(one, Repeat) else [one.lock] if isinstance(one, Release) else []
    return found


def _wait(process: Process, sequence: SequenceState, releasers: Mapping[str, list[Process]]) -> Wait:
    waits, at = process.waits, _task(process)
    if isinstance(waits, LockState):
        who = [one for one in releasers.get(waits.name, []) if one is not process]
        return f"{at}waits for the lock {waits.name}, which {_names(who)} could release", list(who)
    if isinstance(waits, Stream):
        assert isinstance(process, ChannelState)
        if waits.source is not process:
            return f"{at}waits for {process.left} words from {waits.source.name}", [waits.source]
        late: list[Process] = [one for one in waits.destinations() if not one.left]
        return f"{at}has {process.left} words left for {_names(late)}", late
    if isinstance(process, ChannelState):
        return "has no task to do", [sequence]
    if isinstance(waits, ChannelState):
        return f"waits for room in the queue of {waits.name}", [waits]
    if isinstance(waits, TaskRun):
        return f"awaits the task {waits.task.name} on {waits.task.channel}", [waits.on]
    return "has ended", []


def _task(process: Process) -> str:
    if isinstance(process, ChannelState) and process.current is not None:
        return f"(task {process.current.task.name}, descriptor {process.at}) "
    return ""


def _names(who: Sequence[Process]) -> str:
    return " or ".join(one.name for one in who) or "nobody"


def _cycle(pending: Sequence[Process], waits: Mapping[int, Wait]) -> list[Process]:
    """The first cycle that is found from those that have something left to do; empty if there is none."""
    done: set[int] = set()
    for start in pending:
        path: list[Process] = []
        open_: list[list[Process]] = [[start]]
        while open_:
            if not open_[-1]:
                open_.pop()
                if path:
                    done.add(id(path.pop()))
                continue
            one = open_[-1].pop(0)
            if one in path:
                return path[path.index(one) :]
            if id(one) not in done:
                path.append(one)
                open_.append(list(waits[id(one)][1]))
    return []


def _chain(start: Process, waits: Mapping[int, Wait]) -> list[Process]:
    """From one process to one that waits for nobody."""
    path = [start]
    while waits[id(path[-1])][1]:
        path.append(waits[id(path[-1])][1][0])
    return path


def _position(program: Program, sequence: SequenceState) -> str:
    if sequence.ended:
        return f"the sequence has given all of its {len(program.sequence)} commands"
    command, at = program.sequence[sequence.position], f"command {sequence.position} of {len(program.sequence)}"
    return f"the sequence is at {at}: {type(command).__name__.lower()} {command.task}"
