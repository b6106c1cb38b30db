"""The packets of a scheduled phase, in the order in which their column's shim sends them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from zellige.aie2.packet import GROUP, PRODUCT, Header, Packet, packet_size
from zellige.aie2.phase import Array
from zellige.aie2.schedule import Cell, Part, Schedule

NO_TABLE = np.zeros(0, np.int8)


@dataclass(frozen=True, eq=False)
class Parcel:
    """What one column's shim sends: ``size`` bytes for each packet, one behind another in ``data``, as [pass][part][row]."""

    rows: tuple[int, ...]
    size: int
    data: Array


def parcels(schedule: Schedule) -> dict[int, Parcel]:
    """For every column that is the home of rows with packets, by its number."""
    found: dict[int, list[tuple[int, Array]]] = {}
    rows: dict[int, set[int]] = {}
    for number in range(len(schedule.passes)):
        for part in range(len(schedule.parts)):
            for row in listeners(schedule, number):
                home = schedule.on.home(row)
                found.setdefault(home, []).append((row, packet(schedule, number, part, row).encode()))
                rows.setdefault(home, set()).add(row)
    result = {}
    for home, packets in found.items():
        size = max(raw.size for _, raw in packets)
        data = np.zeros((len(packets), size), np.uint8)
        for at, (_, raw) in enumerate(packets):
            data[at, : raw.size] = raw
        result[home] = Parcel(tuple(sorted(rows[home])), size, data)
    return result


def listeners(schedule: Schedule, number: int) -> range:
    """The rows that get packets in a pass."""
    return range(len(schedule.passes[number]) if schedule.phase.own else schedule.listening)


def packet(schedule: Schedule, number: int, part: int, row: int) -> Packet:
    """The packet of a pass and part for a row; one without groups, if the row has nothing to compute."""
    phase, tiling, cells = schedule.phase, schedule.tiling, schedule.passes[number]
    first, last = part == 0, part == len(schedule.parts) - 1
    active = row < len(cells)
    groups = tiling.groups if active else 0
    counts, offsets, blocks = _taps(schedule, cells[row], schedule.parts[part]) if active else _nothing(phase.taps.blocks)
    residual = active and last and phase.residual is not None
    header = Header(
        packet_size(phase.operation, groups, len(offsets)), phase.operation, schedule.steps if len(schedule.parts) == 1 else 1,
        1 + residual, int(active and last), groups, tiling.height, tiling.width, schedule.object_groups, schedule.object_width,
        phase.stride[0], int(first), int(last), phase.low, phase.high)  # fmt: skip
    of = slice(cells[row].first, cells[row].first + groups) if active else slice(0, 0)
    return Packet(header, counts, offsets, blocks, phase.bias[of], phase.multiplier[of], phase.second[of], phase.shift[of],
                  NO_TABLE if phase.table is None else phase.table)


def _nothing(blocks: Array) -> tuple[Array, Array, Array]:
    return np.zeros(0, np.uint16), np.zeros(0, np.uint16), blocks[:0]


def _taps(schedule: Schedule, cell: Cell, part: Part) -> tuple[Array, Array, Array]:
    """Counts, offsets and blocks of the taps that a cell has in a part."""
    phase, taps = schedule.phase, schedule.phase.taps
    ends = taps.ends[cell.first : cell.first + schedule.tiling.groups + 1]
    of = slice(int(ends[0]), int(ends[-1]))
    rows, groups, outputs = taps.rows[of] - part.row, taps.groups[of], np.repeat(np.arange(len(ends) - 1), np.diff(ends))
    groups = groups - cell.first if phase.own else groups - part.group
    chosen = (rows >= 0) & (rows < schedule.tiling.part[1]) & (groups >= 0) & (groups < schedule.object_groups)
    counts = np.bincount(outputs[chosen], minlength=len(ends) - 1).astype(np.uint16)
    further, apart = divmod(taps.columns[of], schedule.fold)
    columns = apart * (schedule.object_width // schedule.fold) + further
    places = (rows * schedule.object_groups + groups) * schedule.object_width + columns
    blocks = taps.blocks[of][chosen] if phase.operation == PRODUCT else taps.blocks[:0]
    return counts, places[chosen].astype(np.uint16), blocks.reshape(-1, GROUP, GROUP)


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
