"""The choice of tilings: a search over all that fit, for the least estimated time.

The estimate is simple: in every step, the slowest of the cores' work and the streams that it needs; or, over the whole phase, shims and
external memory; and the filling of the pipeline. The simulator gives the time of what was chosen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, inf

import numpy as np

from zellige.aie2.device import WORD
from zellige.aie2.overlay import Overlay, ROWS_PER_MEMORY, memory_shares
from zellige.aie2.packet import MAXIMUM, TABLE, packet_size
from zellige.aie2.phase import Array, Phase
from zellige.aie2.schedule import Schedule, Tiling
from zellige.errors import CompileError

STEP = 60.0
"""Cycles of a step beside its work: locks, the call, the header."""

GROUP_CYCLES = 20.0
"""Cycles of a group and 16 pixels beside its taps: filling and draining the pipeline, rescaling, storing."""

WAITING = 8.0
"""Cycles that a group and 16 pixels take to or from the accumulators' memory."""

PIXELS = 16
"""Pixels that the kernel computes at once; four of them in a row of the map."""

CHAIN = 8
"""Descriptors that a core has for its activations (``descriptors.py``): residuals come after at most one fewer parts."""


@dataclass(frozen=True)
class Estimate:
    """Cycles of a phase, and what of it they are: the larger of ``steps`` and the channels'."""

    cycles: float
    bounds: tuple[tuple[str, float], ...]

    @property
    def bound(self) -> str:
        return max(self.bounds, key=lambda one: one[1])[0]


def blocks_of_pixels(schedule: Schedule) -> int:
    """Sets of ``PIXELS`` that cover a tile."""
    quads = schedule.tiling.height * ceil(schedule.tiling.width / 4)
    return ceil(quads / (PIXELS // 4))


class Counts:
    """How many taps the cells of a phase have, part by part."""

    def __init__(self, phase: Phase) -> None:
        self.phase = phase
        groups = 1 if phase.own else phase.source.groups
        self.windows = phase.window[0]
        inputs = np.zeros_like(phase.taps.groups) if phase.own else phase.taps.groups
        outputs = np.repeat(np.arange(phase.groups), np.diff(phase.taps.ends))
        fine = np.zeros((phase.groups + 1, self.windows + 1, groups + 1), np.int64)
        np.add.at(fine, (outputs + 1, phase.taps.rows + 1, inputs + 1), 1)
        self.sums = fine.cumsum(0).cumsum(1).cumsum(2)
        self.cache: dict[tuple[int, int, int, int], Array] = {}

    def cells(self, schedule: Schedule) -> Array:
        """Taps of each pass, row and part; rows without groups have none."""
        key = (schedule.rows, schedule.tiling.groups, *schedule.tiling.part)
        if key not in self.cache:
            self.cache[key] = self._cells(schedule)
        return self.cache[key]

    def _cells(self, schedule: Schedule) -> Array:
        size, (part_groups, part_rows) = schedule.tiling.groups, schedule.tiling.part
        first = np.zeros((len(schedule.passes), schedule.rows), np.int64)
        there = np.zeros_like(first)
        for number, cells in enumerate(schedule.passes):
            for cell in cells:
                first[number, cell.row], there[number, cell.row] = cell.first, 1
        of_cell = (self.sums[first + size * there] - self.sums[first])[:, :, :, :]
        rows = np.array([part.row for part in schedule.parts])
        groups = np.array([part.group for part in schedule.parts])
        below, right = np.minimum(rows + part_rows, self.windows), np.minimum(groups + part_groups, self.sums.shape[2] - 1)
        left = groups
        if self.phase.own:
            left, right = np.zeros_like(groups), np.ones_like(groups)
        return np.asarray(of_cell[..., below, right] - of_cell[..., rows, right] - of_cell[..., below, left] + of_cell[..., rows, left])


def step_cycles(schedule: Schedule, taps: Array) -> Array:
    """Cycles of a step with so many taps."""
    blocks, groups, parts = blocks_of_pixels(schedule), schedule.tiling.groups, len(schedule.parts)
    per_tap = 4.0 * 256 / schedule.on.device.macs if schedule.products else 4.0
    each = GROUP_CYCLES + (2 * WAITING if parts > 1 else 0.0)
    return np.asarray(STEP + blocks * (taps * per_tap + groups * each))


def packet_bytes(schedule: Schedule, taps: Array) -> Array:
    """Bytes of packets with so many taps: of all cells, [passes, rows, parts]."""
    groups = schedule.tiling.groups
    empty = packet_size(schedule.phase.operation, groups, 0)
    each = packet_size(schedule.phase.operation, groups, 1024) - empty
    # parts of packets start at multiples of 32: at most 64 bytes more than this
    return np.asarray(empty + 64 + np.ceil(taps * each / 1024))


def estimate(schedule: Schedule, counts: Counts) -> Estimate:
    """What a schedule should take."""
    phase, on, steps, parts = schedule.phase, schedule.on, schedule.steps, len(schedule.parts)
    taps = counts.cells(schedule)
    work = step_cycles(schedule, taps).max(axis=1)
    packets = packet_bytes(schedule, taps)
    row_packet = packets.max(axis=(0, 2))
    homes = np.zeros(on.columns)
    np.add.at(homes, np.arange(schedule.rows) % on.columns, row_packet)
    sent = len(schedule.passes) * (steps * parts if parts > 1 else 1)
    shim, ddr = on.device.shim_bytes / on.device.clock, (on.device.ddr_bytes or inf) / on.device.clock
    rows = np.array([len(cells) for cells in schedule.passes])
    receivers = rows if phase.own else np.ones_like(rows)
    arriving = np.repeat((receivers * schedule.object_bytes / WORD)[:, None], parts, axis=1)
    residual = rows * schedule.result_bytes / WORD if phase.residual is not None else np.zeros(len(rows))
    if phase.residual is not None and parts == 1:
        each = (work[:, 0] + arriving[:, 0] + residual)[:, None]
    else:
        arriving[:, -1] += residual
        each = np.maximum(work, arriving)
    if parts > 1:
        each = np.maximum(each, homes.max() / WORD)
    stepping = float(each.sum() * steps)
    boxes = steps * sum(schedule.box_bytes(number) * parts / schedule.tiling.together
                        + (schedule.residual_bytes(number) if phase.residual is not None else 0) for number in range(len(rows)))
    results = float(np.minimum(rows, ROWS_PER_MEMORY).sum() * schedule.result_bytes * steps)
    all_results = float(rows.sum() * schedule.result_bytes * steps)
    bounds = {
        "work": float(work.sum() * steps), "activations": float((arriving.sum() + (residual.sum() if parts == 1 else 0)) * steps),
        "packets": float(homes.max() * sent / min(WORD, shim)), "shim": boxes / shim, "results": results / min(WORD, shim),
        "ddr": (on.columns * (boxes + all_results) + float(row_packet.sum()) * sent) / ddr,
    }
    if parts == 1 and len(schedule.passes) > 1:
        # a packet is loaded while the steps of the one before run
        stepping = float(np.maximum(each.sum(axis=1) * steps, homes.max() / min(WORD, shim)).sum())
    fill = schedule.box_bytes(0) / shim + schedule.object_bytes / WORD + float(work[-1].max()) + 2 * schedule.result_bytes / WORD
    return Estimate(max(stepping, *bounds.values()) + fill, (("steps", stepping), *bounds.items()))


def fits(schedule: Schedule, counts: Counts) -> bool:
    """Whether a schedule keeps to all capacities."""
    core, memory, tiling = schedule.on.core_memory, memory_shares(schedule.on), schedule.tiling
    parts = len(schedule.parts)
    if schedule.object_bytes > core.activations or schedule.result_bytes > min(core.results, memory.results):
        return False
    if schedule.accumulator_bytes > core.accumulators:
        return False
    if max(schedule.box_bytes(number) for number in range(len(schedule.passes))) > memory.activations:
        return False
    if parts > 1 and schedule.phase.operation in (MAXIMUM, TABLE):
        return False
    if schedule.phase.residual is not None:
        if schedule.result_bytes > core.activations or parts % 2 == 0 or parts + 1 > CHAIN or tiling.together != parts:
            return False
        if max(schedule.residual_bytes(number) for number in range(len(schedule.passes))) > memory.activations:
            return False
    return bool(packet_bytes(schedule, counts.cells(schedule)).max() <= min(core.weights, memory.weights))


def _cuts(size: int) -> list[int]:
    """Lengths of tiles, one for each number of tiles: the least that make so many."""
    return sorted({ceil(size / count) for count in range(1, size + 1)})


def _splits(on: Overlay, phase: Phase) -> Iterator[tuple[int, int]]:
    """How columns may share the result: (down, across)."""
    for down in range(1, min(on.columns, phase.height) + 1):
        across = min(on.columns // down, phase.width)
        if (down, across) == (1, across) or down * across > on.columns // 2:
            yield down, across


def _parts(phase: Phase, on: Overlay, height: int, width: int) -> Iterator[tuple[int, int]]:
    """Parts that fit a slot of activations: all, or as few as that takes and some more."""
    windows = phase.window[0]
    for rows in [windows] + [rows for rows in range(windows - 1, 0, -1) if windows % rows == 0]:
        line = ((height - 1) * phase.stride[0] + rows) * phase.reads(1, width)[1] * 8
        if phase.own:
            if line <= on.core_memory.activations:
                yield phase.source.groups, rows
                return
            continue
        most = on.core_memory.activations // line
        if most == 0:
            continue
        sizes = sorted({ceil(phase.source.groups / count) for count in range(1, phase.source.groups + 1)}, reverse=True)
        yield from ((size, rows) for size in sizes if size <= most)
        return


def choose(phase: Phase, on: Overlay) -> tuple[Schedule, Estimate]:
    """The best schedule of a phase. Raises ``CompileError`` if none fits."""
    counts, best = Counts(phase), None
    for schedule in _candidates(phase, on, counts):
        found = estimate(schedule, counts)
        if best is None or found.cycles < best[1].cycles:
            best = (schedule, found)
    if best is None:
        raise CompileError(f"node {phase.node!r}: no tile of it, however small, fits the memories of {on}")
    return best


def _candidates(phase: Phase, on: Overlay, counts: Counts) -> Iterator[Schedule]:
    rows = min(on.rows, ROWS_PER_MEMORY if phase.own else on.rows)
    sizes = sorted({ceil(phase.groups / (count * rows)) for count in range(1, phase.groups + 1)})
    for columns in _splits(on, phase):
        for height in _cuts(ceil(phase.height / columns[0])):
            for width in _cuts(ceil(phase.width / columns[1])):
                if height * width * 8 > on.core_memory.results:
                    continue
                for size in sizes:
                    if height * width * 8 * size > on.core_memory.results:
                        break
                    yield from _fitting(phase, on, counts, Tiling(columns, height, width, size, (0, 0)))


def _fitting(phase: Phase, on: Overlay, counts: Counts, tiling: Tiling) -> Iterator[Schedule]:
    """Of the parts that a tile may come in, the largest that fit; with as much together in a memory tile as fits."""
    tried = 0
    for part in _parts(phase, on, tiling.height, tiling.width):
        cut = Tiling(tiling.columns, tiling.height, tiling.width, tiling.groups, part)
        plain = Schedule(phase, on, cut)
        many = 1 if phase.own else -(-phase.source.groups // part[0])
        togethers = [count for count in range(many, 0, -1) if many % count == 0]
        if phase.residual is not None:
            togethers = [len(plain.parts)]
        for together in togethers:
            schedule = Schedule(phase, on, Tiling(tiling.columns, tiling.height, tiling.width, tiling.groups, part, together))
            if fits(schedule, counts):
                tried += 1
                yield schedule
                break
        if tried == 2:
            return

