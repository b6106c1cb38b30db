"""The packets of a scheduled phase, in the order in which their column's shim sends them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from zellige.aie2.lowering.parts import Counts
from zellige.aie2.lowering.schedule import Cell, Schedule
from zellige.aie2.packet import GROUP, PRODUCT, Header, Packet, packet_size
from zellige.aie2.phase import Array

NO_TABLE = np.zeros(0, np.int8)

WORTH = 0.97
"""Packets get sizes of their own if that leaves so much of their bytes, or less."""

Taken = tuple[Array, Array, Array]
"""Counts, offsets and blocks of taps, as packets have them."""

NOTHING: Taken = (np.zeros(0, np.uint16), np.zeros(0, np.uint16), np.zeros((0, GROUP, GROUP), np.int8))


@dataclass(frozen=True, eq=False)
class Parcel:
    """What one column's shim sends: the packets of its ``rows``, one behind another in ``data`` as [pass][part][row]. ``sizes`` and
    ``starts`` ([passes, parts], bytes) are the size of each of a pass and part, and where the first of them begins."""

    rows: tuple[int, ...]
    sizes: Array
    starts: Array
    data: Array


def parcels(schedule: Schedule) -> dict[int, Parcel]:
    """For every column that is the home of rows with packets, by its number."""
    found: dict[int, dict[tuple[int, int], list[tuple[int, Array]]]] = {}
    shares = Counts(schedule.phase).taps(schedule)
    for number, cells in enumerate(schedule.passes):
        taps = [_taps(schedule, cell, shares[number, cell.row]) for cell in cells]
        for part in range(len(schedule.parts)):
            for row in listeners(schedule, number):
                made = packet(schedule, number, part, row, taps[row][part] if row < len(cells) else NOTHING)
                found.setdefault(schedule.on.home(row), {}).setdefault((number, part), []).append((row, made.encode()))
    return {home: _parcel(schedule, packets) for home, packets in found.items()}


def _parcel(schedule: Schedule, packets: dict[tuple[int, int], list[tuple[int, Array]]]) -> Parcel:
    """Of packets, with their rows, by passes and parts."""
    sizes = np.zeros((len(schedule.passes), len(schedule.parts)), np.int64)
    starts = np.zeros_like(sizes)
    for place, several in packets.items():
        sizes[place] = max(one.size for _, one in several)
    if not (schedule.varied and pays(sizes.sum(), sizes.max() * len(packets))):
        sizes[:] = sizes.max()
    data: list[Array] = []
    for place, several in packets.items():
        starts[place] = sum(one.size for one in data)
        data += [np.pad(one, (0, sizes[place] - one.size)) for _, one in several]
    return Parcel(tuple(sorted({row for several in packets.values() for row, _ in several})), sizes, starts, np.concatenate(data))


def pays(varied: float, alike: float) -> bool:
    """Whether packets of their own sizes, so many bytes in all, are worth their descriptors."""
    return varied < WORTH * alike


def listeners(schedule: Schedule, number: int) -> range:
    """The rows that get packets in a pass."""
    return range(len(schedule.passes[number]) if schedule.phase.own else schedule.listening)


def packet(schedule: Schedule, number: int, part: int, row: int, taps: Taken) -> Packet:
    """The packet of a pass and part for a row; one without groups, if the row has nothing to compute."""
    phase, tiling, cells = schedule.phase, schedule.tiling, schedule.passes[number]
    first, last = part == 0, part == len(schedule.parts) - 1
    active = row < len(cells)
    groups = tiling.groups if active else 0
    counts, offsets, blocks = taps
    residual = active and last and phase.residual is not None
    size, steps = packet_size(phase.operation, groups, len(offsets), first, last, 1 + residual), schedule.steps
    header = Header(
        size, phase.operation, steps if len(schedule.parts) == 1 else 1, 1 + residual, int(active and last), groups, tiling.height,
        tiling.width, schedule.object_groups, schedule.object_width,
        phase.stride[0], int(first), int(last), phase.low, phase.high)  # fmt: skip
    of = slice(cells[row].first, cells[row].first + groups) if active else slice(0, 0)
    return Packet(header, counts, offsets, blocks, phase.bias[of], phase.multiplier[of], phase.second[of], phase.shift[of],
                  NO_TABLE if phase.table is None else phase.table)


def _taps(schedule: Schedule, cell: Cell, shares: Array) -> list[Taken]:
    """Counts, offsets and blocks of what a cell sums with each part; ``shares`` are how many taps that is."""
    phase, taps = schedule.phase, schedule.phase.taps
    ends = taps.ends[cell.first : cell.first + schedule.tiling.groups + 1]
    of = slice(int(ends[0]), int(ends[-1]))
    rows, groups, outputs = taps.rows[of], taps.groups[of], np.repeat(np.arange(len(ends) - 1), np.diff(ends))
    further, apart = divmod(taps.columns[of], schedule.fold)
    columns = apart * (schedule.object_width // schedule.fold) + further
    if phase.own:
        groups = groups - cell.first
    # by parts: rows of the window first, then input groups
    turn = np.lexsort((groups, rows // schedule.tiling.part[1])) if not phase.own else np.argsort(rows, kind="stable")
    found, taken = [], 0
    for part, share in zip(schedule.parts, shares, strict=True):
        chosen = np.sort(turn[taken : taken + int(share)])
        taken += int(share)
        counts = np.bincount(outputs[chosen], minlength=len(ends) - 1).astype(np.uint16)
        lines = (rows[chosen] - part.row) * schedule.object_groups + groups[chosen] - part.group
        places = lines * schedule.object_width + columns[chosen]
        blocks = taps.blocks[of][chosen] if phase.operation == PRODUCT else taps.blocks[:0]
        found.append((counts, places.astype(np.uint16), blocks.reshape(-1, GROUP, GROUP)))
    return found


def order(schedule: Schedule, first: int, count: int) -> list[tuple[int, int]]:
    """Passes and parts of the packets that rows get in passes that are alike: for every tile again, if there are parts."""
    times = schedule.steps if len(schedule.parts) > 1 else 1
    return [(number, part) for number in range(first, first + count) for _ in range(times) for part in range(len(schedule.parts))]


@dataclass(frozen=True)
class Batch:
    """Packets of each row that are moved together, from the one number ``at`` on: their ``sizes``, or one, which ``times`` of them
    have; and where in the parcel those of all rows begin."""

    at: int
    sizes: tuple[int, ...]
    times: int
    starts: tuple[int, ...]


def batches(parcel: Parcel, due: Sequence[tuple[int, int]], rows: int) -> Iterator[Batch]:
    """Packets in their order (of passes and parts): together are those of one size that follow each other, else two."""
    sizes, at = [int(parcel.sizes[one]) for one in due], 0
    while at < len(due):
        alike = next((more for more in range(1, len(due) - at) if sizes[at + more] != sizes[at]), len(due) - at)
        count = alike if alike > 1 else min(2, len(due) - at)
        starts = tuple(int(parcel.starts[due[one]]) + row * sizes[one] for one in range(at, at + count) for row in range(rows))
        yield Batch(at, tuple(sizes[at : at + (1 if alike > 1 else count)]), alike, starts)
        at += count
