"""Phases run one by one in numpy, whole maps at once: what placement means, without an overlay."""

from __future__ import annotations

import numpy as np

from zellige.aie2.lowering.margins import tensors_of
from zellige.aie2.lowering.place import place
from zellige.aie2.packet import MAXIMUM, PRODUCT, TABLE
from zellige.aie2.phase import Phase
from zellige.aie2.tensor import Tensor, noted
from zellige.graph.fixed_point import Rescale, saturate
from zellige.graph.quantized import QuantizedGraph

Memory = dict[str, np.ndarray]


def run_phases(graph: QuantizedGraph, inputs: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The values of all nodes."""
    found = place(graph)
    tensors = tensors_of(found)
    memory: Memory = {name: np.full(tensor.size, tensor.fill, np.int8) for name, tensor in tensors.items()}
    constants = {name: extent.constant for name, extent in found.extents.items() if extent.constant is not None}
    for name, array in zip(graph.inputs, inputs, strict=True):
        noted(found.places[name], tensors[name]).write(memory[name], array)
    for name, (where, array) in constants.items():
        noted(where, tensors[name]).write(memory[name], array)
    for phase in found.phases:
        run_phase(phase, tensors, memory)
    return {name: noted(found.places[name], tensors[found.places[name].tensor]).read(memory[found.places[name].tensor])
            for name in graph.nodes}


def _map(tensor: Tensor, memory: Memory) -> np.ndarray:
    return memory[tensor.name][: tensor.rows * tensor.row].reshape(tensor.rows, tensor.groups, tensor.columns, 8)


def _cut(region, tensors: dict[str, Tensor], memory: Memory, rows: int, columns: int) -> np.ndarray:
    tensor = tensors[region.tensor]
    y, x = region.y + tensor.margins[0], region.x + tensor.margins[2]
    assert y >= 0 and x >= 0 and y + rows <= tensor.rows and x + columns <= tensor.columns
    return _map(tensor, memory)[y : y + rows, region.group : region.group + region.groups, x : x + columns]


def run_phase(phase: Phase, tensors: dict[str, Tensor], memory: Memory) -> None:
    source = _cut(phase.source, tensors, memory, *phase.reads(phase.height, phase.width))
    target = _cut(phase.target, tensors, memory, phase.height, phase.width)
    taps = phase.taps
    for group in range(phase.groups):
        read = []
        for tap in range(int(taps.ends[group]), int(taps.ends[group + 1])):
            row, column = int(taps.rows[tap]), int(taps.columns[tap])
            rows = row + phase.stride[0] * np.arange(phase.height)
            columns = column + phase.stride[1] * np.arange(phase.width)
            values = source[rows[:, None], int(taps.groups[tap]), columns[None]].astype(np.int64)
            read.append(values @ taps.blocks[tap].astype(np.int64) if phase.operation == PRODUCT else values)
        if phase.operation in (MAXIMUM, TABLE):
            total = np.maximum.reduce(read)
            target[:, group] = saturate(total if phase.table is None else phase.table[total + 128], phase.low, phase.high)
            continue
        terms = [sum(read, np.zeros((phase.height, phase.width, 8), np.int64)) + phase.bias[group]]
        multipliers = [phase.multiplier[group]]
        if phase.residual is not None:
            terms.append(_cut(phase.residual, tensors, memory, phase.height, phase.width)[:, group].astype(np.int64))
            multipliers.append(phase.second[group])
        wide = Rescale(tuple(one.astype(np.int64) for one in multipliers), phase.shift[group].astype(np.int64))
        target[:, group] = saturate(wide(terms), phase.low, phase.high)
