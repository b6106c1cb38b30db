"""DMA channels and the streams between them.

A stream moves words when its source and all destinations of the flow at hand have a descriptor open: as many in one go as are left
of the shortest, one a cycle, or fewer where it begins or ends in external memory (``external.py``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from zellige.aie2.device import WORD
from zellige.aie2.program import Channel, Descriptor, Task
from zellige.aie2.simulate.costs import Costs
from zellige.aie2.simulate.external import External
from zellige.aie2.simulate.memory import Dimensions, Memory, Words, merged
from zellige.aie2.simulate.order import Order, Stamp
from zellige.aie2.simulate.process import Events, LockState, Process, Routine
from zellige.aie2.simulate.timeline import Lane
from zellige.errors import SimulationError


@dataclass(frozen=True)
class Transfer:
    """A descriptor with its names resolved: what it moves, and the locks around it."""

    descriptor: Descriptor
    memory: Memory
    start: int
    """Word of the memory."""
    dimensions: Dimensions
    acquire: LockState | None
    release: LockState | None
    words: int

    @staticmethod
    def of(descriptor: Descriptor, memory: Memory, address: int, locks: Mapping[str, LockState]) -> Transfer:
        acquire, release = (None if name is None else locks[name] for name in (descriptor.acquire, descriptor.release))
        start, end = (address + descriptor.offset) // WORD, address + descriptor.offset + descriptor.reach
        if end > memory.bytes.size:
            what = f"descriptor {descriptor.number} goes to byte {end} of {memory.name}"
            raise SimulationError(f"{what}, which has {memory.bytes.size}")
        return Transfer(descriptor, memory, start, merged(descriptor.dimensions), acquire, release, descriptor.words)


@dataclass
class TaskRun:
    """One start of a task. ``last`` is the channel's time when it did the last of it."""

    task: Task
    on: Process
    transfers: list[Transfer]
    started: Stamp
    finished: Stamp = None
    last: int = 0
    done: bool = False
    awaited_by: Process | None = None


class ChannelState(Process):
    """A channel, its queue, and the descriptor that it has open: ``left`` words of it still have to move."""

    def __init__(self, channel: Channel, events: Events, order: Order, costs: Costs, depth: int, lane: Lane) -> None:
        super().__init__(str(channel), events, order)
        self.channel = channel
        self.depth = depth
        self.queue: deque[TaskRun] = deque()
        self.current: TaskRun | None = None
        self.at = 0
        """The descriptor's number."""
        self.transfer: Transfer | None = None
        self.left = 0
        self.stream: Stream | None = None
        self.room_wanted_by: Process | None = None
        self.lane = lane
        self._start = 0
        self._costs = costs

    def give(self, run: TaskRun) -> None:
        """Queue a task: there must be room."""
        self.queue.append(run)
        if self.waits is self.queue:
            self.wake()

    def words(self, count: int) -> Words:
        """The next ``count`` of those that are left."""
        assert self.transfer is not None
        first = self.transfer.words - self.left
        return Words(self._start, self.transfer.dimensions, first, first + count)

    def moved(self, count: int) -> None:
        self.left -= count
        if not self.left:
            self.wake()

    def routine(self) -> Routine:
        while True:
            while not self.queue:
                self.waits = self.queue
                yield None
            self.current = run = self.queue.popleft()
            if self.room_wanted_by is not None:
                self.room_wanted_by.wake()
                self.room_wanted_by = None
            self.lane.begin(run.task.name)
            self.order.join(self.number, run.started)
            self.order.begin(self.number, run.task.name)
            for number in range(run.task.repeat):
                for transfer in run.transfers:
                    yield from self._execute(transfer, number, run.task.name)
            run.done, self.current = True, None
            run.last = self.order.now(self.number) - 1
            run.finished = self.order.stamp(self.number)
            if run.awaited_by is not None:
                run.awaited_by.wake()

    def _execute(self, transfer: Transfer, number: int, task: str) -> Routine:
        self.at = transfer.descriptor.number
        if self._costs.descriptor:
            yield self._costs.descriptor
        if transfer.acquire is not None and not transfer.acquire.acquire(self):
            yield None
        count, stride = transfer.descriptor.advance
        self.transfer, self.left = transfer, transfer.words
        self._start = transfer.start + number % count * stride
        if self.stream is None:
            raise SimulationError(f"{self.name} runs the task {task}, but no flow goes there")
        self.waits = self.stream
        self.stream.move()
        yield None
        self.transfer = None
        transfer.memory.filled[transfer.descriptor.buffer] = task
        if transfer.release is not None:
            transfer.release.release(self)


class Stream:
    """What leaves a source: by the number of the packet, or ``None``, who gets it."""

    def __init__(self, source: ChannelState, events: Events, costs: Costs, external: External, carries: bool) -> None:
        self.source = source
        self.carries = carries
        """Whether words are really moved, or only take their time."""
        self.routes: dict[int | None, tuple[ChannelState, ...]] = {}
        self.moving = 0
        self._events = events
        self._costs = costs
        self._external = external

    def add(self, packet: int | None, destinations: tuple[ChannelState, ...]) -> None:
        self.routes[packet] = destinations
        for destination in destinations:
            destination.stream = self

    def destinations(self) -> tuple[ChannelState, ...]:
        """Who gets what the source sends now."""
        assert self.source.transfer is not None
        packet = self.source.transfer.descriptor.packet
        if packet not in self.routes:
            raise SimulationError(f"{self.source.name} sends a packet number {packet}, for which there is no flow")
        return self.routes[packet]

    def move(self) -> None:
        """Go on, if all are ready."""
        source = self.source
        if self.moving or not source.left:
            return
        destinations = self.destinations()
        count = source.left
        for destination in destinations:
            if destination.left < count:
                count = destination.left
        if not count:
            return
        self.moving = count
        transfer = source.transfer
        assert transfer is not None
        begins = transfer.descriptor.packet is not None and source.left == transfer.words
        self._since = self._events.now
        if source.channel.tile.row == 0 or any(one.channel.tile.row == 0 for one in destinations):
            self._external.move(count, self._moved)
        else:
            self._events.after(count + (self._costs.packet if begins else 0), self._moved)

    def _moved(self) -> None:
        source, count, self.moving = self.source, self.moving, 0
        destinations = self.destinations()
        if self.carries:
            self._carry(source, destinations, count)
        for one in (*destinations, source):
            one.lane.busy(self._since, self._events.now)
            one.moved(count)
        self.move()

    @staticmethod
    def _carry(source: ChannelState, destinations: tuple[ChannelState, ...], count: int) -> None:
        order, words = source.order, source.words(count)
        assert source.transfer is not None
        order.read(source.number, source.transfer.memory, words)
        values, stamp = words.take(source.transfer.memory.words), order.stamp(source.number)
        for one in destinations:
            assert one.transfer is not None
            words = one.words(count)
            order.join(one.number, stamp)
            order.write(one.number, one.transfer.memory, words)
            words.put(one.transfer.memory.words, values)
