"""What lies in tiles: buffers in their memories, locks, and the cores' programs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from zellige.aie2.device import KINDS, LOCK_MOST, WORD, Device
from zellige.aie2.overlay import STACK
from zellige.aie2.packet import ALIGNMENT
from zellige.aie2.program import Acquire, Core, Instruction, Program, Release, Repeat, Tile

RINGS = ("activations", "weights", "results")


def is_there(device: Device, tile: Tile) -> bool:
    return 0 <= tile.column < device.columns and 0 <= tile.row <= device.memory_rows + device.core_rows


def memory(program: Program, device: Device) -> Iterator[str]:
    """Buffers are whole words inside the memory of a tile, and don't overlap; a core's leave room for its stack, and begin where
    vectors can be loaded from."""
    by_tile: dict[Tile, list[tuple[int, int, str]]] = {}
    for one in program.buffers:
        if not is_there(device, one.tile) or one.tile.row == 0:
            yield f"{one} is in no tile with a memory"
        elif one.address < 0 or one.size <= 0 or one.address % WORD or one.size % WORD:
            yield f"{one} isn't whole words of {WORD} bytes"
        elif device.kind(one.tile.row) == "core" and one.address % ALIGNMENT:
            yield f"{one} begins at no multiple of {ALIGNMENT} bytes, as what a core loads must"
        by_tile.setdefault(one.tile, []).append((one.address, one.address + one.size, one.name))
    for tile, places in by_tile.items():
        kind, places = device.kind(tile.row), sorted(places)
        size = device.memory_bytes if kind == "memory" else KINDS[kind].memory - STACK
        for (_, end, name), (start, _, other) in pairwise(places):
            if start < end:
                yield f"{name} and {other} overlap at byte {start} of {tile}"
        if places[-1][1] > size:
            yield (f"{places[-1][2]} ends at byte {places[-1][1]} of {tile}, which has {size}"
                   + (f" beside a stack of {STACK}" if kind == "core" else ""))  # fmt: skip
    for host in program.host:
        if host.size <= 0 or host.size % WORD:
            yield f"{host} isn't whole words of {WORD} bytes"
        if host.data is not None and host.data.nbytes != host.size:
            yield f"{host} has {host.data.nbytes} bytes of it"


def locks(program: Program, device: Device) -> Iterator[str]:
    for one in program.locks:
        if not is_there(device, one.tile):
            yield f"{one} is in no tile of the device"
        elif not 0 <= one.number < KINDS[device.kind(one.tile.row)].locks:
            yield f"{one}: a {device.kind(one.tile.row)} tile has locks 0 … {KINDS[device.kind(one.tile.row)].locks - 1}"
        if not 0 <= one.initial <= LOCK_MOST:
            yield f"{one}: locks count from 0 to {LOCK_MOST}"


def cores(program: Program, device: Device) -> Iterator[str]:
    """A core's rings lie where it can reach them, and its program names locks of theirs."""
    buffers, by_name = {one.name: one for one in program.buffers}, {one.name: one for one in program.locks}
    for core in program.cores:
        if not is_there(device, core.tile) or device.kind(core.tile.row) != "core":
            yield f"there is no core at {core.tile}"
            continue
        for name in (*(slot for ring in RINGS for slot in getattr(core, ring).slots), core.accumulators):
            if name not in buffers:
                yield f"the core {core.tile} uses the buffer {name}, which isn't there"
            elif buffers[name].tile not in _reached(core.tile):
                yield f"the core {core.tile} can't reach the buffer {name} at {buffers[name].tile}"
        for name in (lock for ring in RINGS for lock in (getattr(core, ring).full, getattr(core, ring).empty)):
            if name not in by_name:
                yield f"the core {core.tile} uses the lock {name}, which isn't there"
            elif by_name[name].tile not in _reached(core.tile):
                yield f"the core {core.tile} can't reach the lock {name} at {by_name[name].tile}"
        for ring in (getattr(core, name) for name in RINGS):
            count = [by_name[lock].initial for lock in (ring.full, ring.empty) if lock in by_name]
            if sum(count) != len(ring.slots):
                yield f"the locks {ring.full} and {ring.empty} begin at {count}; their ring has {len(ring.slots)} slots"
        yield from _instructions(core, core.program)


def _reached(tile: Tile) -> set[Tile]:
    """Tiles whose memory and locks a core can use: its own, and those to the north, south and west (AM020)."""
    return {tile, Tile(tile.column, tile.row + 1), Tile(tile.column, tile.row - 1), Tile(tile.column - 1, tile.row)}


def _instructions(core: Core, program: tuple[Instruction, ...]) -> Iterator[str]:
    known = {f"{ring}.{which}" for ring in RINGS for which in ("full", "empty")}
    for one in program:
        if isinstance(one, Repeat):
            yield from _instructions(core, one.body)
        elif isinstance(one, Acquire | Release) and one.lock not in known:
            yield f"the program of the core {core.tile} names the lock {one.lock}; it has {', '.join(sorted(known))}"
