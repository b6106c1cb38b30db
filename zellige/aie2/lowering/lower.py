"""Lowering: a quantised graph and an overlay → the tile program that runs it.

What ends a network in real numbers (``QuantizedGraph.tail``: softmax) stays with the host: the program's outputs are the
int8 values that it reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from zellige.aie2.lowering.chains import Turns
from zellige.aie2.lowering.margins import tensors_of
from zellige.aie2.lowering.packets import parcels
from zellige.aie2.lowering.place import place
from zellige.aie2.lowering.placement import Placement
from zellige.aie2.lowering.schedule import Schedule
from zellige.aie2.lowering.sequence import Starts
from zellige.aie2.lowering.stems import fold_stems
from zellige.aie2.lowering.streams import Lowering, idle
from zellige.aie2.lowering.tiling import choose, fits
from zellige.aie2.overlay import Overlay, fixed_parts
from zellige.aie2.packet import GROUP, PRODUCT
from zellige.aie2.phase import Phase
from zellige.aie2.program import HostBuffer, Program
from zellige.aie2.tensor import HostValue, Tensor, noted
from zellige.graph.quantized import QuantizedGraph


def lower(graph: QuantizedGraph, on: Overlay) -> Program:
    """The program of a network on an overlay.

    Its ``inputs`` and ``outputs`` are named as in ``run_int8``; ``tensor.host_value`` reads what it says of them.
    Raises ``CompileError`` naming the first node that can't be placed.
    """
    return assemble(graph, on, plan(graph, on))


@dataclass(frozen=True, eq=False)
class Plan:
    """What is decided before anything is written: where values lie, and how phases are cut. ``folds``: inputs of which so many
    columns lie in one."""

    placement: Placement
    schedules: tuple[Schedule, ...]
    folds: Mapping[str, int]


def plan(graph: QuantizedGraph, on: Overlay) -> Plan:
    """Places and schedules of a network on an overlay.

    Results of convolutions have their channel groups in the order that shares out the work best; so a network is placed twice.
    Raises ``CompileError`` naming the first node that can't be placed.
    """
    graph, folds = fold_stems(graph)
    added = {name for node in graph if node.op in ("add", "subtract") for name in node.inputs}
    chosen, orders = {}, {}
    for phase in place(graph).phases:
        free = phase.name == phase.node and phase.name not in added and _may_be_ordered(phase)
        chosen[phase.name] = choose(phase, on, free)
        if free:
            orders[phase.name] = chosen[phase.name].order
    found = place(graph, orders)
    schedules = []
    for phase in found.phases:
        schedule = Schedule(phase, on, chosen[phase.name].schedule.tiling) if phase.name in chosen else None
        if schedule is None or phase.residual is not None or not fits(schedule):
            schedule = choose(phase, on).schedule
        schedules.append(schedule)
    return Plan(found, tuple(schedules), folds)


def _may_be_ordered(phase: Phase) -> bool:
    """Whether channel groups of its result may lie in any order: not as those of what is added."""
    return phase.operation == PRODUCT and not phase.own and phase.residual is None


def assemble(graph: QuantizedGraph, on: Overlay, planned: Plan) -> Program:
    """The program of a planned network."""
    found, schedules = planned.placement, planned.schedules
    tensors = _with_slack(tensors_of(found), schedules)
    host = [HostBuffer(name, tensor.size, _held(found, tensor)) for name, tensor in tensors.items()]
    turns, sequence, writers = Turns(), Starts(on), _writers(found)
    for schedule in schedules:
        phase, sent = schedule.phase, parcels(schedule)
        host += [HostBuffer(f"{phase.name}.packets{column}", parcel.data.size, parcel.data.reshape(-1))
                 for column, parcel in sorted(sent.items())]
        lowered = Lowering(schedule, tensors, sent, turns)
        sequence.phase(phase.name, lowered.streams(), writers[phase.name], lowered.ready)
    sequence.finish()
    host += _idle(on, schedules)
    buffers, locks, flows, cores = fixed_parts(on)
    read = [name for output in graph.outputs for name in (graph.tail[output].inputs if output in graph.tail else (output,))]
    return Program(graph.name, on.device.name, buffers, tuple(host), locks, flows, cores, sequence.tasks, tuple(sequence.steps),
                   {name: str(_unfolded(_noted(found, tensors, name), shape, planned.folds.get(name, 1)))
                    for name, shape in graph.inputs.items()},
                   {name: str(_noted(found, tensors, name)) for name in dict.fromkeys(read)})  # fmt: skip


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


def _writers(found: Placement) -> dict[str, list[str]]:
    """For every phase the earlier ones that write what it reads."""
    writers: dict[str, list[Phase]] = {}
    needs = {}
    for phase in found.phases:
        reads = [phase.source] + ([phase.residual] if phase.residual is not None else [])
        needs[phase.name] = [earlier.name for region in reads for earlier in writers.get(region.tensor, [])]
        writers.setdefault(phase.target.tensor, []).append(phase)
    return needs
