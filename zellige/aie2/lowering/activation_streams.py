"""How activations go: from host memory through the memory tile of a column to its cores, or from where they stay."""

from __future__ import annotations

from zellige.aie2.device import KINDS, WORD
from zellige.aie2.lowering.chains import Chain, Dimensions, Move, Object, Visit, evenly, linear, pattern, runs
from zellige.aie2.lowering.resident_activations import to_cores_mixed
from zellige.aie2.lowering.schedule import Schedule
from zellige.aie2.lowering.streams import SHIM_CHAIN, Lowering, Stream
from zellige.aie2.lowering.to_cores import to_cores
from zellige.aie2.overlay import memory_shares, resident_buffer
from zellige.aie2.packet import GROUP
from zellige.aie2.program import Channel, Descriptor


def zero_streams(lowering: Lowering, column: int) -> list[Stream]:
    """What comes before all activations."""
    on, buffer = lowering.schedule.on, resident_buffer(column)
    sends, into = [], []
    for fill in lowering.fills:
        brought = Descriptor(0, buffer, fill.at, fill.dimensions)
        sends.append(Chain(0.0, (Descriptor(0, fill.zeros, 0, linear(WORD * brought.words)),)))
        into.append(Chain(0.0, (brought,)))
    return [Stream(f"zeros shim {column}", Channel(on.shim(column), "out", 0), tuple(sends), needs=True),
            Stream(f"zeros in {column}", Channel(on.memory(column), "in", 0), tuple(into), needs=True, effect="resident")]


def activation_streams(lowering: Lowering, column: int) -> list[Stream]:
    schedule, on, turns = lowering.schedule, lowering.schedule.on, lowering.turns
    ring, apart = f"memory{column}.activations", memory_shares(on).activations
    kept = schedule.stays.source or schedule.stays.residual
    sends, into, out = [], [], list[Chain]()
    for first, count, position in lowering.kinds():
        visits, incoming, steps = _visits(lowering, column, first, count), _incoming(schedule, first), count * schedule.steps
        sends += runs(visits, SHIM_CHAIN, evenly(position, steps / max(1, len(visits))))
        boxes = 1 if schedule.stays.source else len(schedule.parts) // schedule.tiling.together
        if incoming:
            into.append(([Object(ring, incoming, apart)], steps * boxes, position, 1 / boxes))
        if kept:
            out += to_cores_mixed(lowering, column, first, count, position, bool(incoming))
        else:
            out += turns.chains(False, [([Object(ring, to_cores(schedule, first), apart)], steps * boxes, position, 1 / boxes)])
    found = [
        Stream(f"activations shim {column}", Channel(on.shim(column), "out", 0), tuple(sends), needs=True),
        Stream(f"activations in {column}", Channel(on.memory(column), "in", 0), tuple(turns.chains(True, into)),
               needs=bool(lowering.fills)),
        Stream(f"activations out {column}", Channel(on.memory(column), "out", 0), tuple(out), kept, "read" if kept else None),
    ]  # fmt: skip
    for row in range(schedule.listening):
        chains = turns.chains(True, _to_core(lowering, row, column))
        found.append(Stream(f"activations core {column}.{row}", Channel(on.core(row, column), "in", 0), tuple(chains)))
    return found


def _incoming(schedule: Schedule, first: int) -> tuple[Move, ...]:
    """How an object comes into a memory tile: of the source, with the residual behind it; but not what stays there."""
    at, found = 0, list[Move]()
    if not schedule.stays.source:
        found.append(Move(0, _folded(schedule, first)))
        at = schedule.box_bytes(first)
    if schedule.phase.residual is not None and not schedule.stays.residual:
        found.append(Move(at, linear(schedule.residual_bytes(first))))
    return tuple(found)


def _folded(schedule: Schedule, first: int) -> Dimensions:
    """Where the columns of a line go to in an object of a memory tile: to all those that one stride keeps apart."""
    lines, each = schedule.object_rows * schedule.box_groups(first), schedule.object_width // schedule.fold
    return pattern([(lines, schedule.object_width * GROUP), (each, GROUP), (schedule.fold, each * GROUP)], KINDS["memory"])


def _to_core(lowering: Lowering, row: int, column: int) -> list[tuple[list[Object], int, float, float]]:
    """What one core takes in."""
    schedule, cycles = lowering.schedule, []
    ring, parts = f"core{column}.{row}.activations", len(schedule.parts)
    part = Object(ring, (Move(0, linear(schedule.object_bytes)),))
    last = Object(ring, (Move(0, linear(schedule.object_bytes + schedule.result_bytes)),))
    for first, count, position in lowering.kinds():
        active = row < len(schedule.passes[first])
        if active and schedule.phase.residual is not None:
            cycles.append(([part] * (parts - 1) + [last], count * schedule.steps, float(position), 1.0))
        elif active or not schedule.phase.own:
            cycles.append(([part], count * schedule.steps * parts, float(position), 1 / parts))
    return cycles


def _visits(lowering: Lowering, column: int, first: int, count: int) -> list[Visit]:
    """Where the shim finds the objects of alike passes: parts of the source, and the residual after them; not what stays."""
    schedule, phase = lowering.schedule, lowering.schedule.phase
    boxes = [] if schedule.stays.source else schedule.parts[:: schedule.tiling.together]
    residual = None if schedule.stays.residual else phase.residual
    size, found = (schedule.object_rows, schedule.box_groups(first), schedule.object_width), []
    for number in range(first, first + count):
        own, groups = schedule.shared(number)
        for top, left in lowering.tiles(column):
            for part in boxes:
                at = (top * phase.stride[0] + part.row, own if phase.own else part.group, left * phase.stride[1])
                dimensions = lowering.host_pattern(phase.source, *size)
                found.append(Visit(phase.source.tensor, lowering.offset(phase.source, *at), dimensions))
            if residual is not None:
                dimensions = lowering.host_pattern(residual, schedule.tiling.height, groups, schedule.tiling.width)
                found.append(Visit(residual.tensor, lowering.offset(residual, top, own, left), dimensions))
    return found
