"""How an object of a memory tile goes to the cores of its column."""

from __future__ import annotations

from zellige.aie2.device import KINDS
from zellige.aie2.lowering.chains import Move, pattern
from zellige.aie2.lowering.schedule import Schedule
from zellige.aie2.overlay import TO_ALL
from zellige.aie2.packet import GROUP


def to_cores(schedule: Schedule, number: int) -> tuple[Move, ...]:
    """In a pass: all parts to all cores, or each row's groups to it. The residual, each row's groups to it, comes before the last
    part."""
    tiling = schedule.tiling
    if schedule.phase.residual is None:
        return parts_to_cores(schedule, number, 0, tiling.together)
    residual = to_rows(schedule, number, tiling.height, tiling.width, schedule.box_bytes(number))
    return (*parts_to_cores(schedule, number, 0, tiling.together - 1), *residual,
            *parts_to_cores(schedule, number, tiling.together - 1, 1))


def parts_to_cores(schedule: Schedule, number: int, part: int, count: int) -> tuple[Move, ...]:
    """So many parts from one on."""
    if not count:
        return ()
    if schedule.phase.own:
        return to_rows(schedule, number, schedule.object_rows, schedule.object_width)
    groups, line = schedule.tiling.part[0], schedule.object_width * GROUP
    parts = [(count, schedule.tiling.apart * line), (schedule.object_rows, schedule.box_groups(number) * line), (groups, line),
             (schedule.object_width, GROUP)]
    return (Move(part * schedule.tiling.apart * line, pattern(parts, KINDS["memory"]), TO_ALL),)


def to_rows(schedule: Schedule, number: int, height: int, width: int, at: int = 0) -> tuple[Move, ...]:
    """To each row the groups that it computes, of what lies from byte ``at`` of an object on, and has those of all."""
    line, (start, groups) = width * GROUP, schedule.shared(number)
    size = pattern([(height, groups * line), (schedule.tiling.groups, line), (width, GROUP)], KINDS["memory"])
    return tuple(Move(at + (cell.first - start) * line, size, 1 + cell.row) for cell in schedule.passes[number])
