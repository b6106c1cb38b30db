"""The host's sequence: starts tasks, up to the depth of the channels' queues ahead, and waits for some of them to end. Then the
host reads the outputs: whatever writes them must have been awaited.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from zellige.aie2.program import Await, Channel, Descriptor, Program, Start, Task, Tile
from zellige.aie2.simulate.channel import ChannelState, TaskRun, Transfer
from zellige.aie2.simulate.costs import Costs
from zellige.aie2.simulate.memory import Memory, Words
from zellige.aie2.simulate.order import Order
from zellige.aie2.simulate.process import Events, Process, Routine
from zellige.aie2.tensor import host_value
from zellige.errors import RaceError, SimulationError


class SequenceState(Process):
    """The host. ``position`` is the command that it is at, ``runs`` the last start of every task."""

    def __init__(self, program: Program, events: Events, order: Order, costs: Costs, channels: Mapping[Channel, ChannelState],
                 transfers: Callable[[Task], list[Transfer]], host: Mapping[str, Memory]) -> None:  # fmt: skip
        super().__init__("the sequence", events, order)
        self.position = 0
        self.runs: dict[str, TaskRun] = {}
        self._program, self._costs, self._channels, self._transfers = program, costs, channels, transfers
        self._outputs = [host[name] for name in sorted({host_value(text).buffer for text in program.outputs.values()})]
        self._given: dict[Channel, list[TaskRun]] = {}
        self._users: dict[tuple[Tile, int], tuple[Descriptor, TaskRun]] = {}

    @property
    def ended(self) -> bool:
        return self.position == len(self._program.sequence)

    def routine(self) -> Routine:
        for command in self._program.sequence:
            yield from self._start(command) if isinstance(command, Start) else self._await(command)
            self.position += 1
        for memory in self._outputs:
            self.order.read(self.number, memory, Words(0, ((memory.words.size, 1),), 0, memory.words.size))

    def _start(self, command: Start) -> Routine:
        task = self._program.tasks[command.task]
        channel = self._channels[task.channel]
        yield self._costs.start
        while len(channel.queue) >= channel.depth:
            channel.room_wanted_by, self.waits = self, channel
            yield None
        given = self._given.setdefault(task.channel, [])
        if len(given) > channel.depth:  # as there is room, one of them runs, and those before it are done
            self.order.join(self.number, given[len(given) - channel.depth - 1].finished)
        self._write_descriptors(task)
        run = TaskRun(task, channel, self._transfers(task), self.order.stamp(self.number))
        self.runs[task.name] = run
        given.append(run)
        self._users.update({(task.channel.tile, one.number): (one, run) for one in task.descriptors})
        channel.give(run)

    def _write_descriptors(self, task: Task) -> None:
        """Starting a task writes its descriptors: nobody may be using what it overwrites."""
        for one in task.descriptors:
            earlier, user = self._users.get((task.channel.tile, one.number), (None, None))
            if user is None or (one == earlier and one.advance == (1, 0)):
                continue
            if not user.done or self.order.knows(self.number, self._channels[user.task.channel].number) < user.last:
                raise RaceError(f"race: the sequence (command {self.position}) starts the task {task.name} and writes descriptor "
                                f"{one.number} of {task.channel.tile}, before it knows that the task {user.task.name} is done")

    def _await(self, command: Await) -> Routine:
        if command.task not in self.runs:
            raise SimulationError(f"the sequence awaits the task {command.task} (its command {self.position}) before it is started")
        run = self.runs[command.task]
        if not run.done:
            run.awaited_by, self.waits = self, run
            yield None
        self.order.join(self.number, run.finished)
