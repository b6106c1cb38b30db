"""Runs a tile program: every descriptor, lock, stream and kernel, in the order of time.

The order of events never depends on anything but the program and the costs, so neither do results and times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from zellige.aie2.device import KINDS, Device, device_named
from zellige.aie2.packet import Packet
from zellige.aie2.program import Channel, Core, Program, Task, Tile
from zellige.aie2.simulate.carried import packet_channels
from zellige.aie2.simulate.channel import ChannelState, Stream, Transfer
from zellige.aie2.simulate.core import CoreState, Cycles, Kernel, Packets
from zellige.aie2.simulate.costs import Costs, costs_of
from zellige.aie2.simulate.deadlock import refuse_deadlock
from zellige.aie2.simulate.external import External
from zellige.aie2.simulate.memory import Memory
from zellige.aie2.simulate.order import Order, Unwatched
from zellige.aie2.simulate.process import Events, LockState
from zellige.aie2.simulate.sequence import SequenceState
from zellige.aie2.simulate.timeline import Lane
from zellige.errors import CompileError, InputError, SimulationError

EXTERNAL = "external memory"


@dataclass(frozen=True)
class Run:
    """What a program did. ``host``: what host buffers hold in the end, as bytes. ``lanes``: when cores and channels were busy, by
    name; and when external memory was what its channels waited for (``EXTERNAL``)."""

    host: Mapping[str, np.ndarray]
    cycles: float
    lanes: Mapping[str, Lane]
    packets: Mapping[str, Mapping[str, Packet]]
    """By lanes of cores: the first packet that every task brought."""


def simulate(program: Program, inputs: Mapping[str, np.ndarray], step: Kernel | None, cycles: Cycles, costs: Costs | None = None,
             device: Device | None = None, move: Literal["all", "packets"] = "all") -> Run:  # fmt: skip
    """Run a program.

    ``inputs``: bytes of host buffers (by name, of their whole size) before it begins; other buffers hold what the program says.
    ``device``: that of its name, if ``None``; ``costs``: those of the device. With ``move="packets"``, only they are moved, nothing
    is computed, and nobody looks for races: the same time comes out, sooner.

    Raises ``SimulationError`` for whatever would go wrong on a chip: ``DeadlockError``, ``RaceError``, bytes that are read before
    they are written, what no packet can mean. ``InputError`` for inputs that aren't the program's.
    """
    device = device or device_named(program.device)
    engine = Engine(program, inputs, step, cycles, costs or costs_of(device), device, move == "all")
    engine.run()
    return Run({name: memory.bytes for name, memory in engine.host.items()}, engine.events.now, engine.lanes,
               {core.lane.name: core.packets for core in engine.cores})  # fmt: skip


class Engine:
    """A program with its state."""

    def __init__(self, program: Program, inputs: Mapping[str, np.ndarray], step: Kernel | None, cycles: Cycles, costs: Costs,
                 device: Device, everything: bool) -> None:  # fmt: skip
        self.program = program
        self.device = device
        self.events = Events()
        self.order = Order(2 + len(program.cores) + len(self._used_channels())) if everything else Unwatched()
        self.costs = costs
        self.lanes: dict[str, Lane] = {}
        self.external = External(device, self.events, self._lane(EXTERNAL))
        self.host = {one.name: Memory(one.name, one.size) for one in program.host}
        self._fill(inputs)
        self.memories = {tile: self._memory(tile) for tile in sorted({one.tile for one in program.buffers})}
        self.places = {one.name: (self.memories[one.tile], one) for one in program.buffers}
        self.locks = {one.name: LockState(one.name, one.initial, self.order) for one in program.locks}
        self.channels: dict[Channel, ChannelState] = {}
        self.sequence = SequenceState(program, self.events, self.order, costs, self.channels, self._transfers_of,
                                      self.host)
        self._channels(None if everything else packet_channels(program))
        packets = Packets(cycles)
        self.cores = [self._core(core, step if everything else None, packets) for core in program.cores]
        self._transfers: dict[str, list[Transfer]] = {}
        self._watch()

    def run(self) -> None:
        for process in (*self.channels.values(), *self.cores, self.sequence):
            process.begin()
        self.events.run()
        refuse_deadlock(self.program, self.sequence, list(self.channels.values()), self.cores, self.events.now)
        for lock in self.program.locks:
            if self.locks[lock.name].value != lock.initial:
                raise SimulationError(f"the lock {lock.name} begins at {lock.initial} and ends at {self.locks[lock.name].value}: "
                                      "not all that was filled was emptied, or the other way round")

    def _fill(self, inputs: Mapping[str, np.ndarray]) -> None:
        for one in self.program.host:
            if one.data is not None:
                self.host[one.name].bytes[: one.size] = np.ascontiguousarray(one.data).view(np.uint8).reshape(-1)
        for name, values in inputs.items():
            if name not in self.host:
                raise InputError(f"the program {self.program.name} has no host buffer {name!r}; it has {', '.join(self.host)}")
            size = next(one.size for one in self.program.host if one.name == name)
            if values.nbytes != size:
                raise InputError(f"the host buffer {name} has {size} bytes, got {values.nbytes}")
            self.host[name].bytes[:size] = np.ascontiguousarray(values).view(np.uint8).reshape(-1)

    def _memory(self, tile: Tile) -> Memory:
        kind = self.device.kind(tile.row)
        size = self.device.memory_bytes if kind == "memory" else KINDS[kind].memory
        return Memory(f"the memory of {tile}", size, tuple(one for one in self.program.buffers if one.tile == tile))

    def _watch(self) -> None:
        """Look for races everywhere but where nothing is ever written."""
        for memory in self.memories.values():
            self.order.watch(memory, written=False)
        tasks = self.program.tasks.values()
        written = {one.buffer for task in tasks if task.channel.direction == "in" for one in task.descriptors}
        for name, memory in self.host.items():
            if name in written:
                self.order.watch(memory, written=True)

    def _lane(self, name: str) -> Lane:
        return self.lanes.setdefault(name, Lane(name))

    def _used_channels(self) -> list[Channel]:
        used = {task.channel for task in self.program.tasks.values()}
        return sorted(used | {one for flow in self.program.flows for one in (flow.source, *flow.destinations)})

    def _channels(self, carrying: set[Channel] | None) -> None:
        flows, channels = self.program.flows, self.channels
        channels.update((one, self._channel(one)) for one in self._used_channels())
        for source in dict.fromkeys(flow.source for flow in flows):
            carries = carrying is None or source in carrying
            stream = channels[source].stream = Stream(channels[source], self.events, self.costs, self.external, carries)
            for flow in flows:
                if flow.source == source:
                    stream.add(flow.packet, tuple(channels[one] for one in flow.destinations))

    def _channel(self, channel: Channel) -> ChannelState:
        depth = KINDS[self.device.kind(channel.tile.row)].queue
        return ChannelState(channel, self.events, self.order, self.costs, depth, self._lane(str(channel)))

    def _core(self, core: Core, step: Kernel | None, packets: Packets) -> CoreState:
        lane = self._lane(f"core {core.tile}")
        return CoreState(core, self.events, self.order, self.costs, self.places, self.locks, step, packets, lane)

    def _transfers_of(self, task: Task) -> list[Transfer]:
        if task.name not in self._transfers:
            self._transfers[task.name] = [Transfer.of(one, *self._place(task, one.buffer), self.locks) for one in task.descriptors]
        return self._transfers[task.name]

    def _place(self, task: Task, name: str) -> tuple[Memory, int]:
        """The memory that a buffer lies in, and the byte where it begins."""
        if task.channel.tile.row == 0 and name in self.host:
            return self.host[name], 0
        if name not in self.places:
            raise CompileError(f"the task {task.name} names the buffer {name}, which is not in the program")
        memory, buffer = self.places[name]
        return memory, buffer.address
