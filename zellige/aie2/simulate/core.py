"""Cores: each runs its instruction program on the slots of its rings, and calls the kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count

import numpy as np

from zellige.aie2.device import WORD
from zellige.aie2.packet import GROUP, HEADER_BYTES, Packet, decode
from zellige.aie2.program import Acquire, Buffer, Core, Instruction, Release, Repeat, Ring
from zellige.aie2.simulate.costs import Costs
from zellige.aie2.simulate.memory import Memory, Words
from zellige.aie2.simulate.order import Order
from zellige.aie2.simulate.process import Events, LockState, Process, Routine
from zellige.aie2.simulate.timeline import Lane
from zellige.aie2.step import residual_bytes
from zellige.errors import CompileError, SimulationError

Kernel = Callable[[np.ndarray, np.ndarray, "np.ndarray | None", np.ndarray], None]
"""One step: packet (u8), activations (i8), result (i8) or ``None``, accumulators (i32); the last two are written."""

Cycles = Callable[[Packet], float]
"""How long a step of a packet takes."""


@dataclass(frozen=True)
class Known:
    """A packet, how long a step of it takes, and which bytes of its activations that reads."""

    packet: Packet
    cycles: float
    reach: tuple[int, int]


class Packets:
    """Packets that cores have read: many read the same, and one many times."""

    def __init__(self, cycles: Cycles) -> None:
        self._cycles = cycles
        self._known: dict[bytes, Known] = {}

    def read(self, slot: np.ndarray) -> Known:
        """The packet that starts a slot. Raises ``CompileError`` if that can't be one."""
        size = int(slot[:WORD].view("<i4")[0])
        key = slot[: max(size, 0)].tobytes()
        if key not in self._known:
            packet = decode(np.frombuffer(key, np.uint8))
            self._known[key] = Known(packet, self._cycles(packet), reach(packet))
        return self._known[key]


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

    def slot(self) -> str:
        return self.slots[self.given_back % len(self.slots)]


class CoreState(Process):
    """A core; ``places`` are all buffers, and the memories that they lie in."""

    def __init__(self, core: Core, events: Events, order: Order, costs: Costs, places: Mapping[str, tuple[Memory, Buffer]],
                 locks: Mapping[str, LockState], kernel: Kernel | None, packets: Packets, lane: Lane) -> None:  # fmt: skip
        super().__init__(f"core {core.tile}", events, order)
        self.core = core
        self.rings = {name: RingState.of(ring, locks) for name, ring in
                      (("activations", core.activations), ("weights", core.weights), ("results", core.results))}
        self.lane = lane
        self.known: Known | None = None
        """The packet at hand."""
        self._slot = ""
        """Where it lies."""
        self.packets: dict[str, Packet] = {}
        """The first that every task brought."""
        self._locks: dict[str, tuple[RingState, LockState]] = {}
        for name, ring in self.rings.items():
            self._locks |= {f"{name}.full": (ring, ring.full), f"{name}.empty": (ring, ring.empty)}
        self._owed = 0.0
        """Cycles that pass before the next thing that others see: acquiring locks takes time, but no event of its own."""
        self._costs, self._places, self._kernel, self._packets = costs, places, kernel, packets

    def routine(self) -> Routine:
        yield from self._run(self.core.program)

    def _run(self, program: tuple[Instruction, ...]) -> Routine:
        for one in program:
            if isinstance(one, Repeat):
                for _ in count() if one.times is None else range(self._times(one.times)):
                    yield from self._run(one.body)
            elif isinstance(one, Acquire):
                ring, lock = self._locks[one.lock]
                since = self.events.now
                if not lock.acquire(self):
                    yield None
                    self._owed = max(0.0, self._owed - (self.events.now - since))
                self._owed += self._costs.lock
                if ring is self.rings["weights"]:
                    self._read_packet()
            elif isinstance(one, Release):
                ring, lock = self._locks[one.lock]
                self._owed += self._costs.lock
                if self._owed:
                    yield self._pay()
                ring.given_back += 1
                lock.release(self)
            else:
                yield from self._call()

    def _pay(self) -> float:
        """What is owed, which now passes."""
        owed, self._owed = self._owed, 0.0
        return owed

    def _times(self, field: str) -> int:
        return int(getattr(self._at_hand().packet.header, field))

    def _at_hand(self) -> Known:
        if self.known is None:
            raise SimulationError(f"{self.name} asks for its packet before it has one")
        return self.known

    def _read_packet(self) -> None:
        self._slot = slot = self.rings["weights"].slot()
        self._read(slot, 0, HEADER_BYTES)
        try:
            self.known = known = self._packets.read(self._bytes(slot))
        except CompileError as error:
            raise SimulationError(f"{self.name} finds no packet in {slot}: {error}") from None
        self._read(slot, 0, known.packet.header.size)
        task = self._places[slot][0].filled[slot]
        self.lane.begin(task)
        self.packets.setdefault(task, known.packet)

    def _call(self) -> Routine:
        began, known = self.events.now + self._owed, self._at_hand()
        self._owed += self._costs.call + known.cycles
        yield self._pay()
        self.lane.busy(began, self.events.now)
        if self._kernel is not None:
            self._compute(self._kernel, known)

    def _compute(self, kernel: Kernel, known: Known) -> None:
        header, rings, accumulators = known.packet.header, self.rings, self.core.accumulators
        activations = rings["activations"].slot()
        result = rings["results"].slot() if header.results else None
        size = header.rows * header.groups * header.width * GROUP
        self._read(self._slot, 0, header.size)
        self._read(activations, *known.reach)
        self._read(activations, 0, residual_bytes(header))
        if not header.first:
            self._read(accumulators, 0, 4 * size)
        if not header.last:
            self._write(accumulators, 0, 4 * size)
        if result is not None:
            self._write(result, 0, size)
        try:
            kernel(self._bytes(self._slot), self._bytes(activations).view(np.int8),
                   None if result is None else self._bytes(result).view(np.int8), self._bytes(accumulators).view(np.int32))
        except CompileError as error:
            raise SimulationError(f"{self.name} can't do a step of the packet in {self._slot}: {error}") from None

    def _bytes(self, buffer: str) -> np.ndarray:
        memory, at = self._places[buffer]
        return memory.bytes[at.address : at.address + at.size]

    def _read(self, buffer: str, first: int, last: int) -> None:
        self.order.read(self.number, self._places[buffer][0], self._words(buffer, first, last, "reads"))

    def _write(self, buffer: str, first: int, last: int) -> None:
        self.order.write(self.number, self._places[buffer][0], self._words(buffer, first, last, "writes"))

    def _words(self, buffer: str, first: int, last: int, does: str) -> Words:
        _, at = self._places[buffer]
        if last > at.size:
            raise SimulationError(f"{self.name} {does} bytes {first} … {last - 1} of {buffer}, which has {at.size}")
        start, end = (at.address + first) // WORD, -(-(at.address + last) // WORD)
        return Words(start, ((end - start, 1),), 0, end - start)


def reach(packet: Packet) -> tuple[int, int]:
    """The first byte of its activations that a tap of a packet reads, and the one behind the last."""
    header, offsets = packet.header, packet.offsets
    if not offsets.size:
        return 0, 0
    last = (header.rows - 1) * header.stride * header.line + header.width - 1
    start = residual_bytes(header)
    return start + GROUP * int(offsets.min()), start + GROUP * (int(offsets.max()) + last + 1)
