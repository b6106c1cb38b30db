"""How results go: from cores to the memory tile of their column, and from there to host memory, or to where they stay, or both."""

from __future__ import annotations

from zellige.aie2.device import KINDS
from zellige.aie2.lowering.chains import Chain, Move, Object, Visit, evenly, linear, pattern, runs
from zellige.aie2.lowering.schedule import Cell
from zellige.aie2.lowering.streams import SHIM_CHAIN, Lowering, Stream
from zellige.aie2.overlay import ROWS_PER_MEMORY, resident_buffer, results_output
from zellige.aie2.packet import GROUP
from zellige.aie2.program import Channel

RESULTS_CHAIN = 1
"""Descriptors of a chain that brings results to where they stay: half of what a channel has."""


def idle(column: int, number: int) -> str:
    """The host buffer that takes what an idle column sends through one of its memory tiles."""
    return f"idle{column}.{number}"


def result_streams(lowering: Lowering, column: int) -> list[Stream]:
    schedule, on = lowering.schedule, lowering.schedule.on
    words, found, stays = linear(schedule.result_bytes), [], lowering.schedule.stays.result
    for sender in dict.fromkeys(on.sender(row) for row in range(schedule.rows)):
        leaving, coming, kept = [], [], list[Chain]()
        for first, count, position in lowering.kinds():
            rows = [cell.row for cell in schedule.passes[first] if on.sender(cell.row) == sender]
            cycle = (count * schedule.steps, float(position), 1.0)
            leaving.append(([Object(f"core{column}.{row}.results", (Move(0, words),)) for row in rows], *cycle))
            coming.append(([Object(f"memory{column}.results{row}", (Move(0, words),)) for row in rows], *cycle))
            if stays and rows:
                kept += runs(_resident_results(lowering, column, sender, first, count), RESULTS_CHAIN, evenly(position, 1.0))
        core, memory = Channel(on.core(sender, column), "out", 0), on.result_memory(sender, column)
        taken = Channel(memory, "in", on.results_input(sender))
        found.append(Stream(f"results core {column}.{sender}", core, tuple(lowering.turns.chains(False, leaving))))
        if stays:
            found.append(Stream(f"results in {column}.{sender}", taken, tuple(kept), needs=lowering.reuses, effect="resident"))
        else:
            found.append(Stream(f"results in {column}.{sender}", taken, tuple(lowering.turns.chains(True, coming))))
    for number in range(on.memories if schedule.stays.out else 0):
        found += _results_out(lowering, column, number)
    return found


def _resident_results(lowering: Lowering, column: int, row: int, first: int, count: int) -> list[Visit]:
    """Where results of a row go to in the resident buffer. If they go on to host memory, in step with those that leave."""
    schedule, target, ring = lowering.schedule, lowering.schedule.phase.target, f"memory{column}.results{row}"
    resident, tiling = lowering.residents[target.tensor], schedule.tiling
    locks = (f"{ring}.empty", f"{ring}.full") if schedule.stays.out else (None, None)
    size = resident.written(tiling.height, tiling.groups, tiling.width)
    return [Visit(resident_buffer(column), resident.offset(column, top, target.group + schedule.passes[number][row].first, left),
                  size, None, *locks)
            for number in range(first, first + count) for top, left in lowering.tiles(column)]


def _results_out(lowering: Lowering, column: int, number: int) -> list[Stream]:
    """Through one memory tile: for every step what is new of the results of its rows, one after another."""
    schedule, on, tiling, target = lowering.schedule, lowering.schedule.on, lowering.schedule.tiling, lowering.schedule.phase.target
    share, tensor = schedule.share(column), lowering.tensors[lowering.schedule.phase.target.tensor]
    above, before = share.skip
    height, width, line = tiling.height - above, tiling.width - before, tiling.width * GROUP
    out, into = list[Chain](), []
    for first, count, position in lowering.kinds():
        cells = [cell for cell in schedule.passes[first] if cell.row // ROWS_PER_MEMORY == number]
        if not cells:
            continue
        objects, groups = [], 0
        for cell in cells:
            new = tiling.groups - cell.skip
            size = [(new, line), (height, tiling.groups * line), (width, GROUP)]
            at = above * tiling.groups * line + cell.skip * line + before * GROUP
            objects.append(Object(f"memory{column}.results{cell.row}", (Move(at, pattern(size, KINDS["memory"])),)))
            groups += new
        if schedule.stays.result:
            leaving = _resident_out(lowering, column, first, count)
            out += runs(leaving, len(cells), evenly(position, 1 / len(cells)), len(cells))
        else:
            out += lowering.turns.chains(False, [(objects, count * schedule.steps, float(position), 1.0)])
        offsets = [lowering.offset(target, top + above, passed[cells[0].row].first + passed[cells[0].row].skip, left + before)
                   for passed in schedule.passes[first : first + count] for top, left in lowering.tiles(column)]
        if share.idle:
            visits = [Visit(idle(column, number), 0, linear(groups * height * width * GROUP)) for _ in offsets]
        else:
            size = [(groups, tensor.line), (height, tensor.row), (width, GROUP)]
            visits = [Visit(target.tensor, offset, pattern(size, KINDS["shim"])) for offset in offsets]
        into += runs(visits, SHIM_CHAIN, evenly(position, 1.0))
    channel = Channel(on.memory(column, number), "out", results_output(number))
    return [Stream(f"results out {column}.{number}", channel, tuple(out)),
            Stream(f"results shim {column}.{number}", Channel(on.shim(column), "in", number), tuple(into), effect="host")]


def _resident_out(lowering: Lowering, column: int, first: int, count: int) -> list[Visit]:
    """The same from the resident buffer, as results come in there."""
    schedule, target, above = lowering.schedule, lowering.schedule.phase.target, lowering.schedule.share(column).skip[0]
    resident, tiling = lowering.residents[target.tensor], schedule.tiling
    size = resident.read(tiling.height - above, tiling.groups, tiling.width)

    def visit(cell: Cell, top: int, left: int) -> Visit:
        ring, at = f"memory{column}.results{cell.row}", resident.offset(column, top + above, target.group + cell.first, left)
        return Visit(resident_buffer(column), at, size, None, f"{ring}.full", f"{ring}.empty")

    return [visit(cell, top, left) for number in range(first, first + count) for top, left in lowering.tiles(column)
            for cell in schedule.passes[number]]
