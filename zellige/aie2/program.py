"""The tile program: everything that an array needs to run a network, as data. The simulator, the estimates and the emitters
read this and nothing else.

Most of it never changes while a network runs: tiles, buffers, locks, flows between DMA channels, and one small program for all
cores, which does what the packets say that come with the weights (``packet.py``). The *sequence* is what a host does meanwhile: it
starts tasks on DMA channels, up to the depth of their queues ahead, and waits for some of them to end.

Units are bytes, but for the dimensions of descriptors, which count words of 4 bytes, as the hardware does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np

from zellige.aie2.device import WORD


@dataclass(frozen=True, order=True)
class Tile:
    """A place in the array: row 0 are shims, then come memory tiles, then cores."""

    column: int
    row: int

    def __str__(self) -> str:
        return f"({self.column},{self.row})"


@dataclass(frozen=True)
class Buffer:
    """Bytes of a tile's memory from ``address`` on."""

    name: str
    tile: Tile
    address: int
    size: int

    def __str__(self) -> str:
        return f"buffer {self.name} {self.tile} {self.address}+{self.size}"


@dataclass(frozen=True)
class HostBuffer:
    """Bytes of external memory. ``data`` is what it holds before the network runs; zeros if ``None``."""

    name: str
    size: int
    data: np.ndarray | None = None

    def __str__(self) -> str:
        return f"host buffer {self.name} {self.size}" + ("" if self.data is None else " with data")


@dataclass(frozen=True)
class Lock:
    """A counter of a tile."""

    name: str
    tile: Tile
    number: int
    initial: int

    def __str__(self) -> str:
        return f"lock {self.name} {self.tile} #{self.number} = {self.initial}"


@dataclass(frozen=True, order=True)
class Channel:
    """One direction of a tile's DMA: ``"in"`` writes what comes from the stream to memory (S2MM), ``"out"`` reads (MM2S)."""

    tile: Tile
    direction: Literal["in", "out"]
    number: int

    def __str__(self) -> str:
        return f"{self.tile}.{self.direction}{self.number}"


@dataclass(frozen=True)
class Flow:
    """A route through the switches, to one channel or many: a word moves when every destination can take it.

    With a ``packet`` number, it carries the packets of that number only, and its source may have other flows.
    """

    source: Channel
    destinations: tuple[Channel, ...]
    packet: int | None = None

    def __str__(self) -> str:
        label = "" if self.packet is None else f" packet {self.packet}"
        return f"flow {self.source} → {', '.join(map(str, self.destinations))}{label}"


@dataclass(frozen=True)
class Descriptor:
    """One transfer of a DMA between a buffer of its tile, or a neighbour's, and the stream.

    It waits until the lock ``acquire`` is at least 1 and takes 1, moves the words that ``dimensions`` (size, stride in
    words; outermost first) pick from ``offset`` on, and adds 1 to ``release``. ``advance`` (count, stride in words): the k-th
    time it runs within a task, it starts (k mod count) strides further. ``packet`` marks what it sends for flows of that number.
    """

    number: int
    buffer: str
    offset: int
    dimensions: tuple[tuple[int, int], ...]
    acquire: str | None = None
    release: str | None = None
    packet: int | None = None
    advance: tuple[int, int] = (1, 0)

    @property
    def words(self) -> int:
        return prod(size for size, _ in self.dimensions)

    @property
    def reach(self) -> int:
        """Bytes from ``offset`` to the end of the last word, wherever it advances to."""
        count, stride = self.advance
        return WORD * (sum((size - 1) * step for size, step in self.dimensions) + (count - 1) * stride + 1)

    def __str__(self) -> str:
        pattern = " ".join(f"{size}:{stride}" for size, stride in self.dimensions)
        parts = [f"#{self.number} {self.buffer}+{self.offset} [{pattern}]"]
        parts += [f"advance {self.advance[0]}:{self.advance[1]}"] if self.advance != (1, 0) else []
        parts += [f"{word} {value}" for word, value in
                  (("packet", self.packet), ("acquire", self.acquire), ("release", self.release)) if value is not None]
        return " ".join(parts)


@dataclass(frozen=True)
class Task:
    """What a channel does when told to: its ``descriptors`` one after another, ``repeat`` times."""

    name: str
    channel: Channel
    descriptors: tuple[Descriptor, ...]
    repeat: int = 1

    def __str__(self) -> str:
        again = f" × {self.repeat}" if self.repeat > 1 else ""
        return "\n".join([f"task {self.name} {self.channel}{again}", *(f"  {one}" for one in self.descriptors)])


@dataclass(frozen=True)
class Start:
    """Give a task to its channel; if the queue is full, wait until it isn't."""

    task: str


@dataclass(frozen=True)
class Await:
    """Wait until a task is done."""

    task: str


@dataclass(frozen=True)
class Acquire:
    """Wait until a lock is at least 1, and take 1."""

    lock: str


@dataclass(frozen=True)
class Release:
    """Add 1 to a lock."""

    lock: str


@dataclass(frozen=True)
class Step:
    """Call the kernel: one step of the packet at hand."""


@dataclass(frozen=True)
class Repeat:
    """Do ``body`` as often as the field ``times`` of the packet at hand says; for ever, if it is ``None``."""

    times: Literal["steps", "results"] | None
    body: tuple[Instruction, ...]


Instruction = Acquire | Release | Step | Repeat


@dataclass(frozen=True)
class Ring:
    """Buffers that are filled and emptied in turn, and the locks that count how many are full and how many empty."""

    slots: tuple[str, ...]
    full: str
    empty: str


@dataclass(frozen=True)
class Core:
    """What a core works on and how: rings that its DMA fills and empties, and the program that it runs."""

    tile: Tile
    activations: Ring
    weights: Ring
    results: Ring
    accumulators: str
    program: tuple[Instruction, ...]


@dataclass(frozen=True)
class Program:
    """A network on an overlay.

    ``inputs`` and ``outputs`` say where in host buffers the values of the network lie (``tensor.py``); all names are unique.
    """

    name: str
    device: str
    buffers: tuple[Buffer, ...]
    host: tuple[HostBuffer, ...]
    locks: tuple[Lock, ...]
    flows: tuple[Flow, ...]
    cores: tuple[Core, ...]
    tasks: Mapping[str, Task]
    sequence: tuple[Start | Await, ...]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]

    def __str__(self) -> str:
        sequence = [f"{type(step).__name__.lower()} {step.task}" for step in self.sequence]
        cores = [line for core in self.cores for line in _core_lines(core)]
        parts = (*self.buffers, *self.host, *self.locks, *self.flows, *self.tasks.values())
        return "\n".join([f"program {self.name} on {self.device}", *map(str, parts), *cores, *sequence]) + "\n"


def _core_lines(core: Core) -> list[str]:
    rings = ", ".join(f"{word} {'/'.join(ring.slots)}" for word, ring in
                      (("activations", core.activations), ("weights", core.weights), ("results", core.results)))
    return [f"core {core.tile} {rings}, accumulators {core.accumulators}", *_instruction_lines(core.program, "  ")]


def _instruction_lines(program: tuple[Instruction, ...], indent: str) -> list[str]:
    lines = []
    for one in program:
        if isinstance(one, Repeat):
            lines += [f"{indent}repeat {one.times or 'for ever'}", *_instruction_lines(one.body, indent + "  ")]
        else:
            lines.append(indent + (type(one).__name__.lower() + (f" {one.lock}" if not isinstance(one, Step) else "")))
    return lines
