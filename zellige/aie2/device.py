"""Devices as data: what an array of AI Engines of the second generation ("AIE-ML") has of everything.

Sources: AMD AM020 (architecture), UG1603 (kernel coding), DS958 (data sheet), the XD100 tutorials on buffer descriptors, and the
target model of the open MLIR-AIE project. What none of them tells is marked so, and stays a number that a user may replace.
The device ``paper`` is the hardware model of D'Alberto et al. (arXiv 2407.09453).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zellige.errors import CompileError

WORD = 4
"""Bytes that a stream moves in a cycle, and the grain of all transfers."""


@dataclass(frozen=True)
class TileKind:
    """What a tile has. ``memory`` and ``program`` in bytes; ``inputs`` and ``outputs`` are channels of its DMA from and to
    streams; ``dimensions`` is how many a descriptor's pattern may have; ``queue``: tasks that wait for a channel, at most."""

    memory: int
    program: int
    inputs: int
    outputs: int
    descriptors: int
    locks: int
    dimensions: int
    sizes: int
    """What a dimension may count to, but for the outermost, and where all words lie side by side."""
    strides: int
    """The largest stride of a dimension, in words."""
    queue: int = 4
    parity: bool = False
    """Even channels use the lower half of the descriptors, odd ones the upper half."""


KINDS: Mapping[str, TileKind] = {
    "core": TileKind(64 * 1024, 16 * 1024, inputs=2, outputs=2, descriptors=16, locks=16, dimensions=3, sizes=255, strides=1 << 13),
    "memory": TileKind(512 * 1024, 0, inputs=6, outputs=6, descriptors=48, locks=64, dimensions=4, sizes=1023, strides=1 << 17,
                       parity=True),
    "shim": TileKind(0, 0, inputs=2, outputs=2, descriptors=16, locks=16, dimensions=3, sizes=1023, strides=1 << 20),
}
"""AM020; XD100, "Buffer descriptors overview"; the parity is from MLIR-AIE's target model, sizes and strides are the widths of the
registers' fields that it and IREE's AMD backend name (wraps of 8 or 10 bits, steps of 13, 17 or 20)."""

LOCK_MOST = 63
"""Locks are counters of six bits (AM020)."""

ADVANCE_MOST, REPEAT_MOST, PACKET_MOST = 64, 256, 31
"""What a descriptor may advance through, how often a task may repeat, and the last packet number: fields of 6, 8 and 5 bits, as
MLIR-AIE checks them."""


@dataclass(frozen=True)
class Device:
    """An array: shim tiles in row 0, ``memory_rows`` of memory tiles above, then ``core_rows`` of cores.

    ``shim_columns`` have a DMA to external memory. ``clock`` in Hz; ``macs`` are int8 products of a core and cycle.
    ``shim_bytes``: bytes that a channel of a shim moves in a second. ``ddr_bytes``: of the external memory, all channels together,
    ``None`` if only the channels bound it. ``ports`` of a switch, to the north, south, east and west; what comes from a side are
    the neighbour's ports to it. Memory tiles have none to the east and west, shims six to the south (MLIR-AIE's target model; the
    numbers are those of the first generation).
    """

    name: str
    columns: int
    core_rows: int
    memory_rows: int
    shim_columns: tuple[int, ...]
    clock: float
    shim_bytes: float
    ddr_bytes: float | None = None
    memory_bytes: int = KINDS["memory"].memory
    macs: int = 256
    ports: tuple[int, int, int, int] = (6, 4, 4, 4)
    ideal: bool = False
    """Cores take as long as their products do at ``macs`` a cycle, and no longer: an assumption."""

    def kind(self, row: int) -> str:
        """Which kind of tile a row has.

        >>> [DEVICES["npu1"].kind(row) for row in (0, 1, 2)]
        ['shim', 'memory', 'core']
        """
        if row == 0:
            return "shim"
        return "memory" if row <= self.memory_rows else "core"


DEVICES: Mapping[str, Device] = {
    device.name: device
    for device in (
        # D'Alberto et al.: 1 GHz, 4 GB/s a channel, a shim in every column, 512 KB of memory tiles a column. Eight rows of cores
        # need the channels of two memory tiles, which the one device with eight rows has: here each with half of the memory.
        Device("paper", 8, 8, 2, tuple(range(8)), 1.0e9, 4.0e9, memory_bytes=256 * 1024, ideal=True),
        # DS958: 304 cores, 1250 MHz at the middle speed grade; shims with a DMA from MLIR-AIE's target model. AM020: 4 bytes a
        # cycle and channel at 1 GHz. Its boards' external memory wasn't found: 25.6 GB/s stands for LPDDR4 at 64 bits.
        Device("ve2802", 38, 8, 2, (2, 3, 6, 7, 14, 15, 22, 23, 30, 31, 34, 35), 1.25e9, 4.0e9, 25.6e9),
        Device("ve2302", 17, 2, 1, (2, 3, 6, 7, 14, 15), 1.25e9, 4.0e9, 25.6e9),
        # MLIR-AIE's target model and clock table: Phoenix has five columns, four of them with a shim DMA.
        Device("npu1", 5, 4, 1, (0, 1, 2, 3), 1.6e9, 4.0e9, 25.6e9),
        # Strix; its clock is unknown, 1 GHz is what others assume. Its cores do 512 products a cycle (aie_api).
        Device("npu2", 8, 4, 1, tuple(range(8)), 1.0e9, 4.0e9, 51.2e9, macs=512),
    )
}


def device_named(name: str) -> Device:
    """The device of that name. Raises ``CompileError`` if there is none."""
    if name not in DEVICES:
        raise CompileError(f"no AIE2 device is called {name!r}; there are {', '.join(DEVICES)}")
    return DEVICES[name]
