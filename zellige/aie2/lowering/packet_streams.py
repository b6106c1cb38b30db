"""How packets go: from host memory through the memory tile of one column to all cores of a row.

Where a phase brings no activations from host memory, both channels of a shim bring packets, and each packet in halves: the memory
tile has a ring for either half, and sends one behind the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from zellige.aie2.lowering.chains import Chain, Move, Object, Visit, evenly, linear, runs
from zellige.aie2.lowering.packets import batches, listeners, order
from zellige.aie2.lowering.streams import SHIM_CHAIN, Lowering, Stream
from zellige.aie2.overlay import DEPTH
from zellige.aie2.packet import ALIGNMENT
from zellige.aie2.program import Channel

Cycle = tuple[Sequence[Object], int, float, float]
"""Objects, how often they come, the step in which the first of them does, and steps for each time."""

RINGS = ("weights", "rest")
"""Of a memory tile: for packets, or their first halves; and for their second halves."""

CHANNELS = (1, 0)
"""Of the shim and of the memory tile: those that fill the rings."""


def packet_streams(lowering: Lowering, column: int) -> list[Stream]:
    """All streams of the packets that a column's shim sends."""
    schedule, parcel = lowering.schedule, lowering.parcels[column]
    on, name, numbered = schedule.on, f"{schedule.phase.name}.packets{column}", schedule.on.rows > schedule.on.columns
    halved = schedule.halved and lowering.spares
    rings = [f"memory{column}.{ring}" for ring in RINGS[: 1 + halved]]
    sends, into = [list[Chain]() for _ in rings], [list[Cycle]() for _ in rings]
    out, cores, each = list[Cycle](), {row: list[Cycle]() for row in parcel.rows}, 1.0
    for first, count, position in lowering.kinds():
        rows = [row for row in listeners(schedule, first) if on.home(row) == column]
        if not rows:
            continue
        due = order(schedule, first, count)
        each = schedule.steps * count / len(due)
        for batch in batches(parcel, due, len(rows)):
            begins, cuts = position + each * batch.at, [_cut(size, halved) for size in batch.sizes]
            for at, ring in enumerate(rings):
                own = [cuts[min(number // len(rows), len(cuts) - 1)] for number in range(len(batch.starts))]
                visits = [Visit(name, start + sum(cut[:at]), linear(cut[at])) for start, cut in zip(batch.starts, own, strict=True)]
                sends[at] += runs(visits, SHIM_CHAIN, evenly(begins, each / len(rows)))
                coming = [Object(ring, (Move(0, linear(cut[at])),)) for cut in cuts]
                into[at].append((coming, batch.times * len(rows), begins, each / len(rows)))
            leaving = [Object(ring, (Move(0, linear(cut[at]), row if numbered else None),))
                       for cut in cuts for row in rows for at, ring in enumerate(rings)]
            out.append((leaving, batch.times, begins, each))
            for row in rows:
                cores[row].append(([Object("", (Move(0, linear(size)),)) for size in batch.sizes], batch.times, begins, each))
    memory, turns, found = on.memory(column), lowering.turns, list[Stream]()
    for what, channel, sent, coming_in in zip(("packets", "rest"), CHANNELS, sends, into, strict=False):
        pair = [Stream(f"{what} shim {column}", Channel(on.shim(column), "out", channel), tuple(sent)),
                Stream(f"{what} in {column}", Channel(memory, "in", channel), tuple(turns.chains(True, coming_in)))]
        found += [_ahead(stream, each, channel == CHANNELS[0] or lowering.follows) for stream in pair]
    found.append(_ahead(Stream(f"packets out {column}", Channel(memory, "out", 1), tuple(turns.chains(False, out))), each))
    for row, cycles in cores.items():
        for of in range(on.columns):
            to = [([replace(one, ring=f"core{of}.{row}.weights") for one in objects], *when) for objects, *when in cycles]
            chains = turns.chains(True, to)  # type: ignore[arg-type]
            found.append(_ahead(Stream(f"packets core {of}.{row}", Channel(on.core(row, of), "in", 1), tuple(chains)), each))
    return found


def _cut(size: int, halved: bool) -> tuple[int, ...]:
    """Bytes of a packet's halves, or of the whole."""
    second = size // 2 // ALIGNMENT * ALIGNMENT
    return (size - second, second) if halved else (size,)


def _ahead(stream: Stream, each: float, ahead: bool = True) -> Stream:
    """What brings packets, to every row one each ``each`` steps, some steps before they are needed, though not before the phase
    begins. Whoever then waits for a task with an earlier packet, waits for a core to be done with the last but ``DEPTH`` before
    that: for steps that have been started. No step is done before all rows have their first packets; these come one row after
    another within the first step."""
    def begins(position: float) -> float:
        if position < each:
            return position / max(each, 1.0) / DEPTH
        return min(position, max(position - DEPTH * each, each / DEPTH))

    return replace(stream, chains=tuple(replace(one, position=begins(one.position)) for one in stream.chains), ahead=ahead)
