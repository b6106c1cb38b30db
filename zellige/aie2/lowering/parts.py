"""Which taps come with which part of the input, and so how large packets are.

All packets of a row have one size in a phase, as one chain of descriptors moves them, but weights that were pruned leave some parts
of a cell with many taps and others with few. So parts may overlap: what lies in two of them may be summed with either. Taps go
in the order of their input groups, as many with every part as the row's *capacity* allows, which is the least for which none
is left when its group is seen for the last time (earliest deadline first, which is optimal for tasks of one length).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from heapq import heappop, heappush

import numpy as np

from zellige.aie2.lowering.schedule import Schedule
from zellige.aie2.phase import Array, Phase


class Counts:
    """How many taps the cells of a phase have, summed over result groups, window rows and input groups. What was asked once is
    known."""

    def __init__(self, phase: Phase) -> None:
        self.own, self.windows = phase.own, phase.window[0]
        inputs = np.zeros_like(phase.taps.groups) if phase.own else phase.taps.groups
        groups = 1 if phase.own else phase.source.groups
        outputs = np.repeat(np.arange(phase.groups), np.diff(phase.taps.ends))
        shape = (phase.groups, self.windows + 1, groups + 1)
        place = np.ravel_multi_index((outputs, phase.taps.rows + 1, inputs + 1), shape)
        self._each = np.bincount(place, minlength=np.prod(shape)).reshape(shape).cumsum(1).cumsum(2)
        totals = self._each[:, -1, -1]
        self.dense = bool(np.all(totals == totals.max(initial=0)))
        self._arrange(tuple(range(phase.groups)))

    def _arrange(self, order: tuple[int, ...]) -> None:
        self.order = order
        self._dealt: dict[int, Counts] = {}
        self._taps: dict[tuple[int, int, tuple[int, int], int], Array] = {}
        self.sums = np.concatenate([np.zeros_like(self._each[:1]), self._each[list(order)].cumsum(0)])

    def dealt(self, groups: int) -> Counts:
        """With result groups in an order in which cells of so many have nearly the same, and those of a pass even more so."""
        if self.dense:
            return self
        if groups not in self._dealt:
            found = copy(self)
            found._arrange(deal(self._each[:, -1, -1].tolist(), groups))
            self._dealt[groups] = found
        return self._dealt[groups]

    def taps(self, schedule: Schedule) -> Array:
        """Taps of each pass, row and part; rows without groups have none."""
        key = (schedule.on.rows, schedule.tiling.groups, schedule.tiling.part, schedule.tiling.apart)
        if key not in self._taps:
            self._taps[key] = self._counted(schedule)
        return self._taps[key]

    def _counted(self, schedule: Schedule) -> Array:
        size, (_, part_rows) = schedule.tiling.groups, schedule.tiling.part
        first = np.zeros((len(schedule.passes), schedule.rows), np.int64)
        there = np.zeros_like(first)
        for number, cells in enumerate(schedule.passes):
            for cell in cells:
                first[number, cell.row], there[number, cell.row] = cell.first, 1
        of_cell = self.sums[first + size * there] - self.sums[first]
        if self.own or part_rows < self.windows:
            return self._apart(of_cell, schedule)
        return shared_out(of_cell[:, :, -1], np.array([part.group for part in schedule.parts]), schedule.tiling.part[0])

    def _apart(self, of_cell: Array, schedule: Schedule) -> Array:
        """Parts that have nothing in common."""
        top, left = (np.array([getattr(part, name) for part in schedule.parts]) for name in ("row", "group"))
        bottom = np.minimum(top + schedule.tiling.part[1], self.windows)
        right = np.minimum(left + schedule.tiling.part[0], self.sums.shape[2] - 1)
        if self.own:
            left, right = np.zeros_like(left), np.ones_like(left)
        below = of_cell[..., bottom, right] - of_cell[..., bottom, left]
        return np.asarray(below - of_cell[..., top, right] + of_cell[..., top, left])


def deal(totals: Sequence[int], groups: int) -> tuple[int, ...]:
    """An order of result groups with so many taps: the largest first, each goes to the cell that has least so far; then cells are
    sorted, for those of a pass to be alike.

    >>> deal([9, 8, 1, 2], 2)
    (0, 2, 1, 3)
    """
    sizes = [min(groups, len(totals) - first) for first in range(0, len(totals), groups)]
    cells: list[list[int]] = [[] for _ in sizes]
    due = [(0, number) for number in range(len(sizes))]
    for group in sorted(range(len(totals)), key=lambda one: (-totals[one], one)):
        total, number = heappop(due)
        cells[number].append(group)
        if len(cells[number]) < sizes[number]:
            heappush(due, (total + totals[group], number))
    whole = [cell for cell, size in zip(cells, sizes, strict=True) if size == groups]
    whole.sort(key=lambda cell: (-sum(totals[group] for group in cell), cell))
    rest = [cell for cell, size in zip(cells, sizes, strict=True) if size < groups]
    return tuple(group for cell in (*whole, *rest) for group in cell)


def shared_out(before: Array, starts: Array, size: int) -> Array:
    """Taps of every part ([passes, rows, parts]), where ``before`` [passes, rows, groups + 1] are those of lower input groups, and
    parts have ``size`` groups from ``starts`` on."""
    groups = before.shape[2] - 1
    ends = np.minimum(starts + size, groups)
    if np.all(ends[:-1] <= starts[1:]):
        return np.asarray(before[:, :, ends] - before[:, :, starts])
    # what is only in parts i … j: groups that part i − 1 ends before, and part j + 1 begins after
    only_from, only_to = np.concatenate([[0], ends[:-1]]), np.concatenate([starts[1:], [groups]])
    demand = before[:, :, None, only_to] - before[:, :, only_from][..., None]
    number = np.arange(len(starts))
    length = number[None, :] - number[:, None] + 1
    capacity = np.ceil(np.where(length > 0, demand / np.maximum(length, 1), 0).max(axis=(0, 2, 3))).astype(np.int64)
    taken, found = np.zeros(before.shape[:2], np.int64), []
    for end in ends:
        now = np.minimum(capacity, before[:, :, end] - taken)
        found.append(now)
        taken = taken + now
    return np.stack(found, axis=2)
