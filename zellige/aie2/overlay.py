"""The overlay: a rectangle of cores with the memory tiles and shims that feed it, and what of it never changes.

As in D'Alberto et al. (arXiv 2407.09453): the width of a layer's output is split over columns, output channels over rows.
Activations of a column come through its shim and its memory tile to all its cores; packets of a row through the memory tile of one
column to all cores of the row; results go down a column. Rows above the fourth send theirs to a second memory tile, as one has six
input channels. Every buffer is there twice: one is filled while the other is read. What is left of the first memory tile is for
values that stay there between phases (``lowering/residency.py``); where they are all that a phase reads, the channels of
activations bring the second halves of packets.

::

    shim    in DDR      out 0 activations, out 1 packets;  in 0, 1 results of the memory tiles
    memory  first       in 0 activations, 1 packets, 2 … 5 results of rows 0 … 3;  out 0 activations, 1 packets, 2 results
            second      in 0, 1 results of rows 4 … 7;  out 0 results
    core                in 0 activations, 1 packets;  out 0 results

Memory tiles reach the memory of their neighbours, which phases use whose values stay there (``lowering/resident.py``). So columns
lie side by side where they can: on the VE2802, whose shims with a DMA lie apart, up to six do; more lie each above its shim.

With more than four rows, cores send results in pairs (``Overlay.paired``): 2 and 3 of the first take those of rows 0 … 3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from zellige.aie2.device import KINDS, WORD, Device, device_named
from zellige.aie2.program import Acquire, Buffer, Channel, Core, Flow, Instruction, Lock, Release, Repeat, Ring, Step, Tile
from zellige.errors import CompileError

TARGET = re.compile(r"aie2:([1-9][0-9]*)x([1-9][0-9]*)")
"""How targets name an overlay: rows and columns."""

DEPTH = 2
"""Slots of a ring."""

ROWS_PER_MEMORY = 4
"""Rows of cores whose results one memory tile takes."""

TO_ALL = 0
"""The packet number of activations for a whole column; those for row r alone have 1 + r."""

ALIGNED = 32
"""Sizes of shares of a memory tile are multiples of this."""

STACK = 1024
"""Bytes of a core's stack (the default of AMD's tools)."""

PROGRAM: tuple[Instruction, ...] = (
    Repeat(None, (
        Acquire("weights.full"),
        Repeat("steps", (
            Acquire("activations.full"),
            Repeat("results", (Acquire("results.empty"),)),
            Step(),
            Repeat("results", (Release("results.full"),)),
            Release("activations.empty"),
        )),
        Release("weights.empty"),
    )),
)  # fmt: skip
"""What every core does: locks are those of its rings."""


@dataclass(frozen=True)
class CoreMemory:
    """How a core's 64 KB are shared out, in bytes of one slot; the rest is stack and the counters of the rings."""

    activations: int = 6 * 1024
    weights: int = 14 * 1024
    results: int = 4 * 1024
    accumulators: int = 14 * 1024

    @property
    def size(self) -> int:
        return DEPTH * (self.activations + self.weights + self.results) + self.accumulators


@dataclass(frozen=True)
class Overlay:
    """``rows`` cores in each of the columns ``places`` of a device, from the left; and the columns of the shims that feed them."""

    device: Device
    rows: int
    places: tuple[int, ...]
    shims: tuple[int, ...]
    core_memory: CoreMemory = CoreMemory()

    @property
    def columns(self) -> int:
        return len(self.places)

    @property
    def memories(self) -> int:
        """Memory tiles of a column that are used."""
        return -(-self.rows // ROWS_PER_MEMORY)

    def core(self, row: int, column: int) -> Tile:
        return Tile(self.places[column], 1 + self.device.memory_rows + row)

    def memory(self, column: int, number: int = 0) -> Tile:
        return Tile(self.places[column], 1 + number)

    def shim(self, column: int) -> Tile:
        return Tile(self.shims[column], 0)

    def home(self, row: int) -> int:
        """The column through whose memory tile a row's packets come."""
        return row % self.columns

    def reaches(self, column: int, other: int) -> bool:
        """Whether the memory tiles of a column reach those of another: they do, where they are the same or neighbours."""
        return abs(self.places[column] - self.places[other]) <= 1

    def result_memory(self, row: int, column: int) -> Tile:
        """The memory tile that takes a core's results."""
        return self.memory(column, row // ROWS_PER_MEMORY)

    @property
    def paired(self) -> bool:
        """Whether two cores, one above the other, send their results as one stream: switches have four ports to the south, so no
        more than four streams come down a column."""
        return self.rows > ROWS_PER_MEMORY

    def sender(self, row: int) -> int:
        """The row whose memory takes a row's results, and whose DMA sends them: its own, or that below."""
        return row - row % 2 if self.paired else row

    def results_input(self, row: int) -> int:
        """The channel of its memory tile that a row's results come in by."""
        number = row % ROWS_PER_MEMORY // (2 if self.paired else 1)
        return number + 2 if row < ROWS_PER_MEMORY else number

    def __str__(self) -> str:
        return f"{self.device.name} {self.rows}x{self.columns}"


def overlay_of(target: str, device: str) -> Overlay:
    """The overlay that a target names, on the device of that name. Raises ``CompileError`` if there is none.

    >>> print(overlay_of("aie2:4x4", "npu1"))
    npu1 4x4
    """
    match = TARGET.fullmatch(target) if isinstance(target, str) else None
    if match is None:
        raise CompileError(f"expected a target of rows and columns of cores such as aie2:4x4, got {target!r}")
    return overlay(device_named(device), int(match[1]), int(match[2]))


def overlay(device: Device, rows: int, columns: int) -> Overlay:
    """The overlay of that size, with a shim for every column.

    Columns are neighbours, as near to shims as can be, if ports to the east and west carry what goes between; else each is above
    its shim.

    Raises ``CompileError`` if the device is too small.

    >>> from zellige.aie2.device import DEVICES
    >>> small, large = overlay(DEVICES["ve2802"], 4, 4), overlay(DEVICES["ve2802"], 4, 8)
    >>> small.places, small.shims
    ((2, 3, 4, 5), (2, 3, 6, 7))
    >>> large.places == large.shims
    True
    """
    if not (1 <= rows <= device.core_rows and 1 <= columns <= device.columns) or rows > device.memory_rows * ROWS_PER_MEMORY:
        raise CompileError(f"{device.name} has {device.core_rows} rows and {device.columns} columns of cores, and memory tiles for "
                           f"{device.memory_rows * ROWS_PER_MEMORY} rows; an overlay of {rows} × {columns} doesn't fit")
    if columns > len(device.shim_columns):
        raise CompileError(f"{device.name} has {len(device.shim_columns)} columns with a shim DMA; an overlay of {columns} columns "
                           "needs one for each")
    core_memory = CoreMemory() if rows <= ROWS_PER_MEMORY else CoreMemory(results=2 * 1024)
    above = Overlay(device, rows, device.shim_columns[:columns], device.shim_columns[:columns], core_memory)
    neighbours = [replace(above, places=tuple(range(first, first + columns)), shims=device.shim_columns[at : at + columns])
                  for first in range(device.columns - columns + 1) for at in range(len(device.shim_columns) - columns + 1)]
    return next(filter(_carried, sorted(neighbours, key=_detour)), above)


def _detour(on: Overlay) -> int:
    return sum(abs(shim - place) for shim, place in zip(on.shims, on.places, strict=True))


def _carried(on: Overlay) -> bool:
    """Whether the switches of shims have ports for all that goes between columns and shims elsewhere: two streams there, and one
    back from each memory tile."""
    _, _, east, west = on.device.ports
    for gap in range(on.device.columns - 1):
        eastward = sum(shim <= gap < place for shim, place in zip(on.shims, on.places, strict=True))
        westward = sum(place <= gap < shim for shim, place in zip(on.shims, on.places, strict=True))
        if 2 * eastward + on.memories * westward > east or 2 * westward + on.memories * eastward > west:
            return False
    return True


ACTIVATIONS = 64 * 1024
"""Bytes of a slot for activations in a memory tile, at most."""


@dataclass(frozen=True)
class MemoryShares:
    """How a memory tile is shared out, in bytes of one slot. ``rest`` is for the second halves of packets; ``resident`` for values
    that stay, and has no slots."""

    activations: int
    weights: int
    rest: int
    results: int
    """Of one core."""
    resident: int


def memory_shares(on: Overlay) -> MemoryShares:
    """Half of the first memory tile for activations, at most; what cores take of packets and results; and what is left for values
    that stay there. None do where results of some rows go to a second memory tile, as that sends nothing to cores. Packets come in
    halves where channels of shims are slower than streams."""
    size, core = on.device.memory_bytes, on.core_memory
    activations, weights = min(size // 4, ACTIVATIONS), min(size // 8, core.weights)
    results = min(size // 8 // ROWS_PER_MEMORY, core.results)
    halved = on.memories == 1 and on.device.shim_bytes < WORD * on.device.clock
    rest = weights // 2 // ALIGNED * ALIGNED if halved else 0
    left = size - DEPTH * (activations + weights + rest + min(on.rows, ROWS_PER_MEMORY) * results)
    return MemoryShares(activations, weights, rest, results, 0 if on.memories > 1 else left // ALIGNED * ALIGNED)


def fixed_parts(on: Overlay) -> tuple[tuple[Buffer, ...], tuple[Lock, ...], tuple[Flow, ...], tuple[Core, ...]]:
    """Buffers, locks, flows and cores of an overlay: all of a program that doesn't depend on the network."""
    laid = _Laying([], [])
    cores = [_core(on, laid, row, column) for column in range(on.columns) for row in range(on.rows)]
    for column in range(on.columns):
        _memories(on, laid, column)
    return tuple(laid.buffers), tuple(laid.locks), tuple(_flows(on)), tuple(cores)


@dataclass
class _Laying:
    """Buffers and locks as they are laid, tile by tile, one behind another."""

    buffers: list[Buffer]
    locks: list[Lock]

    def buffer(self, name: str, tile: Tile, size: int) -> str:
        address = sum(one.size for one in self.buffers if one.tile == tile)
        self.buffers.append(Buffer(name, tile, address, size))
        return name

    def lock(self, name: str, tile: Tile, initial: int) -> str:
        self.locks.append(Lock(name, tile, sum(one.tile == tile for one in self.locks), initial))
        return name

    def ring(self, name: str, tile: Tile, size: int) -> Ring:
        slots = tuple(self.buffer(f"{name}.{slot}", tile, size) for slot in range(DEPTH))
        return Ring(slots, *self.ring_locks(name, tile))

    def ring_locks(self, name: str, tile: Tile) -> tuple[str, str]:
        return self.lock(f"{name}.full", tile, 0), self.lock(f"{name}.empty", tile, DEPTH)


def _core(on: Overlay, laid: _Laying, row: int, column: int) -> Core:
    tile, memory = on.core(row, column), on.core_memory
    room, size = KINDS["core"].memory - STACK, memory.size + on.paired * DEPTH * memory.results
    if size > room:
        raise CompileError(f"a core has {room} bytes beside its stack; its buffers would take {size}")
    name = f"core{column}.{row}"
    activations = laid.ring(f"{name}.activations", tile, memory.activations)
    weights = laid.ring(f"{name}.weights", tile, memory.weights)
    results = laid.ring(f"{name}.results", on.core(on.sender(row), column), memory.results)
    return Core(tile, activations, weights, results, laid.buffer(f"{name}.accumulators", tile, memory.accumulators), PROGRAM)


def _memories(on: Overlay, laid: _Laying, column: int) -> None:
    shares, name = memory_shares(on), f"memory{column}"
    # one buffer for both slots: descriptors then alternate between them by advancing, and need half as many numbers
    laid.buffer(f"{name}.activations", on.memory(column), DEPTH * shares.activations)
    laid.ring_locks(f"{name}.activations", on.memory(column))
    laid.ring(f"{name}.weights", on.memory(column), shares.weights)
    if shares.rest:
        laid.ring(f"{name}.rest", on.memory(column), shares.rest)
    for row in range(on.rows):
        laid.ring(f"{name}.results{row}", on.result_memory(row, column), shares.results)
    if shares.resident:
        laid.buffer(resident_buffer(column), on.memory(column), shares.resident)


def _flows(on: Overlay) -> list[Flow]:
    flows = []
    for column in range(on.columns):
        shim, first = on.shim(column), on.memory(column)
        cores = [on.core(row, column) for row in range(on.rows)]
        flows += [Flow(Channel(shim, "out", number), (Channel(first, "in", number),)) for number in (0, 1)]
        flows.append(Flow(Channel(first, "out", 0), tuple(Channel(core, "in", 0) for core in cores), packet=TO_ALL))
        flows += [Flow(Channel(first, "out", 0), (Channel(core, "in", 0),), packet=1 + row) for row, core in enumerate(cores)]
        flows += [Flow(Channel(core, "out", 0), (Channel(on.result_memory(row, column), "in", on.results_input(row)),))
                  for row, core in enumerate(cores) if on.sender(row) == row]
        flows += [Flow(Channel(on.memory(column, number), "out", results_output(number)), (Channel(shim, "in", number),))
                  for number in range(on.memories)]
    for row in range(on.rows):
        source = Channel(on.memory(on.home(row)), "out", 1)
        destinations = tuple(Channel(on.core(row, column), "in", 1) for column in range(on.columns))
        flows.append(Flow(source, destinations, packet=row if on.rows > on.columns else None))
    return flows


def resident_buffer(column: int) -> str:
    """The buffer of a column's memory tile for values that stay there between phases."""
    return f"memory{column}.resident"


def results_output(number: int) -> int:
    """The channel by which results leave the first memory tile of a column, or the second."""
    return (2, 0)[number]
