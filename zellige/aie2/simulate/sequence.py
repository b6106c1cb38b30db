"""The host's sequence: starts tasks, up to the depth of the channels' queues ahead, and waits for some of them to end."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from zellige.aie2.program import Await, Channel, Program, Start, Task
from zellige.aie2.simulate.channel import ChannelState, TaskRun
from zellige.aie2.simulate.costs import Costs
from zellige.aie2.simulate.process import Events, Process, Routine
from zellige.errors import SimulationError


class SequenceState(Process):
    """The host. ``position`` is the command that it is at, ``runs`` the last start of every task."""

    def __init__(self, program: Program, events: Events, costs: Costs, channels: Mapping[Channel, ChannelState],
                 run_of: Callable[[Task], TaskRun]) -> None:  # fmt: skip
        super().__init__("the sequence", events)
        self.position = 0
        self.runs: dict[str, TaskRun] = {}
        self._program, self._costs, self._channels, self._run_of = program, costs, channels, run_of

    @property
    def ended(self) -> bool:
        return self.position == len(self._program.sequence)

    def routine(self) -> Routine:
        for command in self._program.sequence:
            yield from self._start(command) if isinstance(command, Start) else self._await(command)
            self.position += 1

    def _start(self, command: Start) -> Routine:
        task = self._program.tasks[command.task]
        channel = self._channels[task.channel]
        yield self._costs.start
        while len(channel.queue) >= channel.depth:
            channel.room_wanted_by, self.waits = self, channel
            yield None
        self.runs[task.name] = run = self._run_of(task)
        channel.give(run)

    def _await(self, command: Await) -> Routine:
        if command.task not in self.runs:
            raise SimulationError(f"the sequence awaits the task {command.task} (its command {self.position}) before it is started")
        run = self.runs[command.task]
        if not run.done:
            run.awaited_by, self.waits = self, run
            yield None
