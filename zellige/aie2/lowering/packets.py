"""The packets of a scheduled phase, in the order in which their column's shim sends them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from zellige.aie2.lowering.parts import Counts
from zellige.aie2.lowering.schedule import Cell, Schedule
from zellige.aie2.packet import GROUP, PRODUCT, Header, Packet, packet_size
from zellige.aie2.phase import Array

NO_TABLE = np.zeros(0, np.int8)

Taken = tuple[Array, Array, Array]
"""Counts, offsets and blocks of taps, as packets have them."""

NOTHING: Taken = (np.zeros(0, np.uint16), np.zeros(0, np.uint16), np.zeros((0, GROUP, GROUP), np.int8))


@dataclass(frozen=True, eq=False)
class Parcel:
    """What one column's shim sends: ``size`` bytes for each packet, one behind another in ``data``, as [pass][part][row]."""

    rows: tuple[int, ...]
    size: int
    data: Array


def parcels(schedule: Schedule) -> dict[int, Parcel]:
    """For every column that is the home of rows with packets, by its number."""
    found: dict[int, list[tuple[int, Array]]] = {}
    shares = Counts(schedule.phase).taps(schedule)
    for number, cells in enumerate(schedule.passes):
        taps = [_taps(schedule, cell, shares[number, cell.row]) for cell in cells]
        for part in range(len(schedule.parts)):
            for row in listeners(schedule, number):
                made = packet(schedule, number, part, row, taps[row][part] if row < len(cells) else NOTHING)
                found.setdefault(schedule.on.home(row), []).append((row, made.encode()))
    result = {}
    for home, packets in found.items():
        size = max(raw.size for _, raw in packets)
        data = np.zeros((len(packets), size), np.uint8)
        for at, (_, raw) in enumerate(packets):
            data[at, : raw.size] = raw
        result[home] = Parcel(tuple(sorted({row for row, _ in packets})), size, data)
    return result


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


def order(schedule: Schedule, parcel: Parcel, column: int, first: int, count: int) -> Iterator[int]:
    """Numbers of the parcel's packets, as the column's shim sends them in passes that are alike: for every tile again, if there
    are parts."""
    before = sum(_at(schedule, column, number) for number in range(first))
    times = schedule.steps if len(schedule.parts) > 1 else 1
    for number in range(first, first + count):
        size = _at(schedule, column, number)
        for _ in range(times):
            yield from range(before, before + size)
        before += size


def _at(schedule: Schedule, column: int, number: int) -> int:
    """Packets of a pass that a column sends."""
    return len(schedule.parts) * sum(schedule.on.home(row) == column for row in listeners(schedule, number))
