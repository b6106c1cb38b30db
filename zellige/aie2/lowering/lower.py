"""Lowering: a quantised graph and an overlay → the tile program that runs it.

What ends a network in real numbers (``QuantizedGraph.tail``: softmax) stays with the host: the program's outputs are the
int8 values that it reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from zellige.aie2.device import WORD
from zellige.aie2.lowering.activation_streams import activation_streams, zero_streams
from zellige.aie2.lowering.chains import Turns, linear
from zellige.aie2.lowering.margins import tensors_of
from zellige.aie2.lowering.packet_streams import packet_streams
from zellige.aie2.lowering.packets import parcels
from zellige.aie2.lowering.placement import Placement
from zellige.aie2.lowering.plan import Plan, outputs_of, plan
from zellige.aie2.lowering.residency import Residency, waits
from zellige.aie2.lowering.result_streams import idle, result_streams
from zellige.aie2.lowering.schedule import Schedule
from zellige.aie2.lowering.sequence import Starts
from zellige.aie2.lowering.streams import Fill, Lowering, Stream
from zellige.aie2.overlay import Overlay, fixed_parts
from zellige.aie2.packet import GROUP
from zellige.aie2.program import HostBuffer, Program
from zellige.aie2.tensor import HostValue, Tensor, noted
from zellige.graph.quantized import QuantizedGraph

ZEROS = "zeros"
"""What the host buffer of zeros is called, if nothing else is."""


def lower(graph: QuantizedGraph, on: Overlay) -> Program:
    """The program of a network on an overlay.

    Its ``inputs`` and ``outputs`` are named as in ``run_int8``; ``tensor.host_value`` reads what it says of them.
    Raises ``CompileError`` naming the first node that can't be placed.
    """
    return assemble(graph, on, plan(graph, on))


def assemble(graph: QuantizedGraph, on: Overlay, planned: Plan) -> Program:
    """The program of a planned network."""
    found, schedules, residency = planned.placement, planned.schedules, planned.residency
    read = outputs_of(graph)
    tensors = _with_slack(tensors_of(found), schedules)
    stays = {schedule.phase.name: schedule.stays for schedule in schedules}
    hidden = {schedule.phase.target.tensor for schedule in schedules if not schedule.stays.out}
    host = [HostBuffer(name, tensor.size, _held(found, tensor)) for name, tensor in tensors.items() if name not in hidden]
    turns, sequence, after, fills = Turns(), Starts(on), waits(residency, found, stays), _fills(residency, found)
    overwritten = residency.overwritten(found)
    before: Lowering | None = None
    for schedule in schedules:
        phase, sent = schedule.phase, parcels(schedule)
        host += [HostBuffer(f"{phase.name}.packets{column}", parcel.data.size, parcel.data.reshape(-1))
                 for column, parcel in sorted(sent.items())]
        lowered = Lowering(schedule, tensors, sent, turns, residency.residents, fills.get(phase.name, ()),
                           bool(overwritten.get(phase.name)), before is not None and before.spares)
        sequence.phase(phase.name, _streams(lowered), after[phase.name], lowered.ready)
        before = lowered
    sequence.finish()
    host += _idle(on, schedules)
    zeros = [WORD * prod(size for size, _ in fill.dimensions) for several in fills.values() for fill in several]
    host += [HostBuffer(found.free(ZEROS), max(zeros))] if zeros else []
    buffers, locks, flows, cores = fixed_parts(on)
    return Program(graph.name, on.device.name, buffers, tuple(host), locks, flows, cores, sequence.tasks, tuple(sequence.steps),
                   {name: str(_unfolded(_noted(found, tensors, name), shape, planned.folds.get(name, 1)))
                    for name, shape in graph.inputs.items()},
                   {name: str(_noted(found, tensors, name)) for name in read})  # fmt: skip


def _streams(lowering: Lowering) -> list[Stream]:
    """What all channels do in a phase. Packets first: they may come before what the phase reads is there."""
    found = [stream for column in lowering.parcels for stream in packet_streams(lowering, column)]
    for kind in (zero_streams, activation_streams, result_streams):
        found += [stream for column in range(lowering.schedule.on.columns) for stream in kind(lowering, column)]
    return [stream for stream in found if stream.chains]


def _fills(residency: Residency, found: Placement) -> dict[str, list[Fill]]:
    """The zeros that phases bring to memory tiles first."""
    zeros = found.free(ZEROS)
    fills = {name: [Fill(one.at, one.margins, zeros) for one in several] for name, several in residency.filled(found).items()}
    if residency.zeros:
        fills.setdefault(found.phases[0].name, []).append(Fill(0, linear(residency.zeros), zeros))
    return fills


def _noted(found: Placement, tensors: dict[str, Tensor], name: str) -> HostValue:
    return noted(found.places[name], tensors[found.places[name].tensor])


def _unfolded(value: HostValue, shape: tuple[int, ...], fold: int) -> HostValue:
    """An input, as it is before its columns are folded."""
    return value if fold == 1 else replace(value, lanes=value.lanes[: shape[1]], width=shape[3], shape=shape, fold=fold)


def _held(found: Placement, tensor: Tensor) -> np.ndarray | None:
    """What a tensor holds from the start: its margins, where they aren't zeros, and constants."""
    constant = found.extents[tensor.name].constant
    if constant is None and not tensor.fill:
        return None
    held = np.full(tensor.size, tensor.fill, np.int8)
    if constant is not None:
        noted(constant[0], tensor).write(held, constant[1])
    return held


def _with_slack(tensors: Mapping[str, Tensor], schedules: Sequence[Schedule]) -> dict[str, Tensor]:
    """Tensors, with the bytes behind them that parts read and don't use."""
    found = dict(tensors)
    for schedule in schedules:
        tensor = found[schedule.phase.source.tensor]
        beyond = schedule.overrun * tensor.line + GROUP * (schedule.fold - 1)
        found[tensor.name] = replace(tensor, slack=max(tensor.slack, beyond))
    return found


def _idle(on: Overlay, schedules: Sequence[Schedule]) -> list[HostBuffer]:
    """Room for what idle columns compute."""
    size = {column: max((on.rows * schedule.result_bytes for schedule in schedules if schedule.share(column).idle), default=0)
            for column in range(on.columns)}
    return [HostBuffer(idle(column, number), most) for column, most in size.items() if most for number in range(on.memories)]
