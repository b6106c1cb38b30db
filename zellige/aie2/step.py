"""One step of the kernel in numpy: what a packet (``packet.py``) tells a core to do, bit for bit like the int8 reference of
``graph/quantized_reference.py``.

It defines what the C++ of ``kernels/`` must compute. Products are summed in float64, which holds whole numbers exactly to 2^53;
sums of several parts wait as int32 of [groups][rows][width][8].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from zellige.aie2.packet import GROUP, MAXIMUM, OPERATIONS, PRODUCT, SUM, TABLE, Header, Packet, decode
from zellige.errors import CompileError
from zellige.graph.fixed_point import LEAST, Rescale, saturate

Array = np.ndarray


class StepFunction(Protocol):
    """What runs a step. ``packet``, ``activations`` (behind the residual, if there is one), ``result`` (``None`` if there is none)
    and ``accumulators`` are views into a tile's memory: u8 or i8, the last int32. The last two are written in place.
    """

    def __call__(self, packet: Array, activations: Array, result: Array | None, accumulators: Array) -> None: ...


def step(packet: Array, activations: Array, result: Array | None, accumulators: Array) -> None:
    """Run one step with numpy. Raises ``CompileError`` if the packet reads or writes beyond what it was given."""
    parts = decode(packet)
    header = parts.header
    check(parts, activations, result, accumulators)
    pixels = header.rows * header.width
    units = _units(activations[residual_bytes(header) :])
    place = pixel_places(header).reshape(-1)
    ends = np.cumsum(parts.counts, dtype=np.int64)
    for group, (count, end) in enumerate(zip(parts.counts, ends, strict=True)):
        taps = slice(int(end) - int(count), int(end))
        term = TERMS[header.operation](parts, taps, units[place[:, None] + parts.offsets[taps].astype(np.int64)])
        if header.operation in (MAXIMUM, TABLE):
            _store(result, header, group, saturate(term, header.low, header.high))
            continue
        waiting = accumulators[group * pixels * GROUP : (group + 1) * pixels * GROUP].reshape(pixels, GROUP)
        term = term + (parts.bias[group] if header.first else waiting)
        if header.last:
            _store(result, header, group, _rescaled(parts, group, term, activations))
        else:
            waiting[...] = term


def _product(packet: Packet, taps: slice, values: Array) -> Array:
    wide = values.reshape(len(values), -1).astype(np.float64)
    return (wide @ packet.blocks[taps].reshape(-1, GROUP).astype(np.float64)).astype(np.int64)


TERMS: Mapping[int, Callable[[Packet, slice, Array], Array]] = {
    PRODUCT: _product,
    SUM: lambda packet, taps, values: values.sum(axis=1, dtype=np.int64),
    MAXIMUM: lambda packet, taps, values: values.max(axis=1),
    TABLE: lambda packet, taps, values: packet.table[values[:, 0].astype(np.int64) - LEAST],
}
"""What an operation makes of a group's taps: values int8 [pixels, taps, 8] → [pixels, 8]."""


def _rescaled(packet: Packet, group: int, term: Array, activations: Array) -> Array:
    header, terms, multipliers = packet.header, [term], [packet.multiplier[group].astype(np.int64)]
    if header.terms == 2:
        terms.append(_cut(activations, header)[:, group].reshape(-1, GROUP))
        multipliers.append(packet.residual[group].astype(np.int64))
    return saturate(Rescale(tuple(multipliers), packet.shift[group].astype(np.int64))(terms), header.low, header.high)


def _store(result: Array | None, header: Header, group: int, values: Array) -> None:
    assert result is not None
    _cut(result, header)[:, group] = values.reshape(header.rows, header.width, GROUP)


def _units(slot: Array) -> Array:
    return slot[: slot.size // GROUP * GROUP].view(np.int8).reshape(-1, GROUP)


def _cut(slot: Array, header: Header) -> Array:
    """A slot as what lies in it: [rows, groups, width, 8] of the result's shape."""
    shape = (header.rows, header.groups, header.width, GROUP)
    return slot[: result_bytes(header)].view(np.int8).reshape(shape)


def pixel_places(header: Header) -> Array:
    """How far, in units of 8 bytes, the pixels of the result ([rows, width]) are from the first one in the activations."""
    return np.arange(header.rows)[:, None] * header.stride * header.line + np.arange(header.width)


def result_bytes(header: Header) -> int:
    """Bytes of a result, and of a residual."""
    return header.rows * header.groups * header.width * GROUP


def residual_bytes(header: Header) -> int:
    """Bytes of the residual that an object begins with, if there is one."""
    return result_bytes(header) if header.terms == 2 else 0


def check(packet: Packet, activations: Array, result: Array | None, accumulators: Array) -> None:
    """Raise ``CompileError`` if a step needs other or larger buffers than it gets, or if its header makes no sense."""
    header = packet.header
    problems = [f"{what}: expected {expected}, got {came}"
                for what, fine, expected, came in _demands(packet, activations, result, accumulators) if not fine]
    if problems:
        raise CompileError(f"a packet for {OPERATIONS[header.operation]} can't be run: {problems[0]}")


Demand = tuple[str, bool, object, object]


def _demands(packet: Packet, activations: Array, result: Array | None, accumulators: Array) -> list[Demand]:
    """What a step demands: what, whether it is so, what was expected and what came."""
    header, counts = packet.header, packet.counts
    alone = header.operation in (MAXIMUM, TABLE)
    least, most = int(alone), 1 if header.operation == TABLE else len(packet.offsets)
    demands: list[Demand] = [
        ("terms", header.terms in ((1,) if alone else (1, 2)), "1" if alone else "1 or 2", header.terms),
        ("rows and width", header.rows > 0 and header.width > 0, "at least 1", (header.rows, header.width)),
        ("parts", not alone or bool(header.first and header.last), "one part", (header.first, header.last)),
        ("taps of a group", bool(np.all(counts >= least) and np.all(counts <= most)), f"{least} to {most}", counts),
        ("shifts", bool(np.all((packet.shift >= 0) & (packet.shift < 63))), "0 to 62", packet.shift),
    ]
    if any(not fine for _, fine, _, _ in demands) or header.groups == 0:
        return demands
    if len(packet.offsets):
        reach = GROUP * (int(packet.offsets.max()) + (header.rows - 1) * header.stride * header.line + header.width)
        reach += residual_bytes(header)
        demands.append(("bytes of activations", reach <= activations.size, reach, activations.size))
    size = result_bytes(header)
    demands.append(("bytes of the residual", residual_bytes(header) <= activations.size, size, activations.size))
    if header.last:
        room = 0 if result is None else result.size
        demands.append(("bytes of the result", size <= room, size, room))
    if not (header.first and header.last):
        demands.append(("accumulators", size <= accumulators.size, size, accumulators.size))
    return demands
