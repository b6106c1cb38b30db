"""Cores: each runs its instruction program on the slots of its rings, and calls the kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from zellige.aie2.packet import Packet, decode
from zellige.aie2.program import Acquire, Core, Instruction, Release, Repeat, Ring
from zellige.aie2.simulate.costs import Costs
from zellige.aie2.simulate.process import Events, LockState, Process, Routine
from zellige.aie2.simulate.timeline import Lane
from zellige.errors import CompileError, SimulationError

Kernel = Callable[[np.ndarray, Sequence[np.ndarray], "np.ndarray | None", np.ndarray], None]
"""One step: packet (u8), input objects (i8), result (i8) or ``None``, accumulators (i32); the last two are written."""

Cycles = Callable[[Packet], float]
"""How long a step of a packet takes."""


@dataclass
class RingState:
    """A ring as its core sees it: slots are taken in turn, and the next one is at hand when the last is given back."""

    slots: tuple[str, ...]
    full: LockState
    empty: LockState
    given_back: int = 0

    @staticmethod
    def of(ring: Ring, locks: Mapping[str, LockState]) -> RingState:
        return RingState(ring.slots, locks[ring.full], locks[ring.empty])

    def slot(self, ahead: int = 0) -> str:
        return self.slots[(self.given_back + ahead) % len(self.slots)]


class CoreState(Process):
    """A core. ``views`` are the buffers of its tile, as bytes; the kernel isn't called if it is ``None``."""

    def __init__(self, core: Core, events: Events, costs: Costs, views: Mapping[str, np.ndarray], locks: Mapping[str, LockState],
                 kernel: Kernel | None, cycles: Cycles, lane: Lane) -> None:  # fmt: skip
        super().__init__(f"core {core.tile}", events)
        self.core = core
        self.rings = {name: RingState.of(ring, locks) for name, ring in
                      (("activations", core.activations), ("weights", core.weights), ("results", core.results))}
        self.lane = lane
        self.packet: Packet | None = None
        self._events, self._costs, self._views, self._kernel, self._cycles = events, costs, views, kernel, cycles
        self._step = 0.0

    def routine(self) -> Routine:
        yield from self._run(self.core.program)

    def _run(self, program: tuple[Instruction, ...]) -> Routine:
        for one in program:
            if isinstance(one, Repeat):
                for _ in count() if one.times is None else range(self._times(one.times)):
                    yield from self._run(one.body)
            elif isinstance(one, Acquire):
                ring, lock = self._lock(one.lock)
                yield from lock.acquire(self)
                yield self._costs.lock
                if ring is self.rings["weights"]:
                    self._read_packet()
            elif isinstance(one, Release):
                ring, lock = self._lock(one.lock)
                yield self._costs.lock
                ring.given_back += 1
                lock.release(self)
            else:
                yield from self._call()

    def _lock(self, name: str) -> tuple[RingState, LockState]:
        ring, _, which = name.partition(".")
        return self.rings[ring], self.rings[ring].full if which == "full" else self.rings[ring].empty

    def _times(self, field: str) -> int:
        return int(getattr(self._at_hand().header, field))

    def _at_hand(self) -> Packet:
        if self.packet is None:
            raise SimulationError(f"{self.name} asks for its packet before it has one")
        return self.packet

    def _read_packet(self) -> None:
        slot = self.rings["weights"].slot()
        try:
            self.packet = decode(self._views[slot])
        except CompileError as error:
            raise SimulationError(f"{self.name} finds no packet in {slot}: {error}") from None
        self._step = self._costs.call + self._cycles(self.packet)

    def _call(self) -> Routine:
        packet, began = self._at_hand(), self._events.now
        yield self._step
        self.lane.busy(began, self._events.now)
        if self._kernel is None:
            return
        header, rings = packet.header, self.rings
        inputs = [self._views[rings["activations"].slot(at)].view(np.int8) for at in range(header.inputs)]
        result = self._views[rings["results"].slot()].view(np.int8) if header.results else None
        self._kernel(self._views[rings["weights"].slot()], inputs, result, self._views[self.core.accumulators].view(np.int32))
