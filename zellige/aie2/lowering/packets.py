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
    """What one column's shim sends: one behind another in ``data``, as [pass][part][row], the packets of its ``rows``. ``sizes`` and
    ``starts`` ([passes, parts], bytes) are those of each packet of a pass and part, and of the first of them."""

    rows: tuple[int, ...]
    sizes: Array
    starts: Array
    data: Array


def parcels(schedule: Schedule) -> dict[int, Parcel]:
    """For every column that is the home of rows with packets, by its number."""
    shares, found = Counts(schedule.phase).taps(schedule), {}
    passes, parts = len(schedule.passes), len(schedule.parts)
    raw: dict[tuple[int, int, int], Array] = {}
    for number, cells in enumerate(schedule.passes):
        taps = [_taps(schedule, cell, shares[number, cell.row]) for cell in cells]
        for part in range(parts):
            for row in listeners(schedule, number):
                made = packet(schedule, number, part, row, taps[row][part] if row < len(cells) else NOTHING)
                raw[number, part, row] = made.encode()
    for home in sorted({schedule.on.home(row) for _, _, row in raw}):
        sent = {place: packet for place, packet in raw.items() if schedule.on.home(place[2]) == home}
        sizes = np.zeros((passes, parts), np.int64)
        for (number, part, _), one in sent.items():
            sizes[number, part] = max(sizes[number, part], one.size)
        if not (schedule.varied and pays(sizes.sum(), sizes.max() * np.count_nonzero(sizes))):
            sizes[sizes > 0] = sizes.max()
        data, starts = [], np.zeros_like(sizes)
        for (number, part, row), one in sent.items():
            if row == min(other for at, of, other in sent if (at, of) == (number, part)):
                starts[number, part] = sum(map(len, data))
            data.append(np.pad(one, (0, int(sizes[number, part]) - one.size)))
        found[home] = Parcel(tuple(sorted({row for _, _, row in sent})), sizes, starts, np.concatenate(data))
    return found


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


def batches(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Packets that are moved together: the first of them, and how many. Those of one size that follow each other; else two.

    >>> list(batches([4, 4, 4, 5, 6, 7]))
    [(0, 3), (3, 2), (5, 1)]
    """
    at = 0
    while at < len(sizes):
        alike = next((more for more in range(1, len(sizes) - at) if sizes[at + more] != sizes[at]), len(sizes) - at)
        count = alike if alike > 1 else min(2, len(sizes) - at)
        yield at, count
        at += count
