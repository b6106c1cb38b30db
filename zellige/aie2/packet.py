"""Packets: what a core is told to do, with the weights that it needs for it, in one buffer.

A core has two input channels. One brings activations; the other brings packets, each a header, then tables, then weights. A packet
is worth ``steps`` steps of the kernel; each step reads an object of activations, and makes ``results`` (one or none). So
every core runs the same program, whatever the network.

Objects of activations are int8 of [rows][groups][width][8]: a group is 8 channels, and numbers of channels are padded to it.
For every output group, ``counts`` says how many taps are summed; a tap reads its 8 channels of each output pixel from ``offsets``
(in units of 8 bytes: the place of the first output pixel's) on, pixel beside pixel in a row, rows ``stride`` apart. (Layers that
step over columns find these put together by the memory tile.) By operation:

- ``PRODUCT``: a tap has a block of 8 × 8 weights, [inputs][outputs]. Blocks that are all zero have no tap: nothing is skipped
  but what isn't there. Grouped and depthwise convolutions and linear layers are this too.
- ``SUM``: a tap is added channel by channel: averages, additions.
- ``MAXIMUM``: the largest tap, channel by channel; every group has one at least.
- ``TABLE``: the one tap of every group is looked up in ``table``: 256 results for −128 … 127.

Products and sums start from ``bias``, or, when the packet is not the ``first`` part of a layer, from what is in the accumulators;
unless it is the ``last``, they stay there. What is last is rescaled as ``graph.fixed_point.Rescale`` says, together with the
residual, if there are two ``terms``: then the object begins with that ([rows][groups][width][8], of the result's shape), and
activations lie behind. Maxima and tables have one part and no residual, and are not rescaled. Every result is saturated to
``low`` … ``high``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import prod

import numpy as np

from zellige.errors import CompileError

PRODUCT, SUM, MAXIMUM, TABLE = range(4)
OPERATIONS = ("product", "sum", "maximum", "table")

GROUP = 8
"""Channels that lie side by side: the width of a block."""

ALIGNMENT = 32
"""Tables and weights start at multiples of this: the width of a core's loads. So must packets, and all that cores work on."""


def aligned_bytes(size: int) -> np.ndarray:
    """Bytes, all zero, of which the first lies at a multiple of ``ALIGNMENT``."""
    whole = np.zeros(size + ALIGNMENT, np.uint8)
    start = -whole.ctypes.data % ALIGNMENT
    return whole[start : start + size]


@dataclass(frozen=True)
class Header:
    """The first words of a packet, in this order, as little-endian int32."""

    size: int
    operation: int
    steps: int
    terms: int
    results: int
    groups: int
    rows: int
    width: int
    input_groups: int
    input_width: int
    stride: int
    first: int
    last: int
    low: int
    high: int

    @property
    def line(self) -> int:
        """Units of 8 bytes from an input row to the next."""
        return self.input_groups * self.input_width


WORDS = tuple(field.name for field in fields(Header))
HEADER_BYTES = -(-4 * len(WORDS) // ALIGNMENT) * ALIGNMENT
"""Of the header and the word behind it."""

MOST_SHIFT = 31
"""By which sums of 32 bits can be shifted."""


@dataclass(frozen=True, eq=False)
class Packet:
    """A packet in parts. Shapes: ``counts`` u16[groups], ``offsets`` u16[taps], ``blocks`` i8[taps, 8, 8] (``PRODUCT`` only),
    ``bias``, ``multiplier``, ``residual`` (its multiplier) and ``shift`` i32[groups, 8], ``table`` i8[256] (``TABLE`` only).
    What a packet doesn't need is left out: it has a bias if it is ``first``, multipliers and shifts if ``last``.

    The word behind the header says whether the packet is ``plain``: it spares cores to look."""

    header: Header
    counts: np.ndarray
    offsets: np.ndarray
    blocks: np.ndarray
    bias: np.ndarray
    multiplier: np.ndarray
    residual: np.ndarray
    shift: np.ndarray
    table: np.ndarray

    @property
    def plain(self) -> bool:
        """Whether all sums are rescaled by shifts alone, alike for the eight channels of a group, and within 32 bits."""
        multipliers, shift = self.multiplier, self.shift
        if not self.header.last or self.header.operation not in (PRODUCT, SUM):
            return True
        if np.any(multipliers != 1) or np.any(shift != shift[:, :1]) or np.any(shift > MOST_SHIFT):
            return False
        factor = self.residual[:, :1]
        powers = (factor > 0) & (factor & (factor - 1) == 0)
        return self.header.terms < 2 or bool(np.all(powers) and np.all(self.residual == factor))

    def encode(self) -> np.ndarray:
        """The packet as bytes (u8), as many as ``header.size``."""
        found = np.zeros(self.header.size, np.uint8)
        for (at, dtype, shape), part in zip(_places(self.header, len(self.offsets)), self._parts(), strict=True):
            raw = np.ascontiguousarray(part.reshape(-1)[: prod(shape)], dtype=dtype).view(np.uint8)
            found[at : at + raw.size] = raw
        found[4 * len(WORDS)] = self.plain
        return found

    def _parts(self) -> tuple[np.ndarray, ...]:
        header = np.array([getattr(self.header, name) for name in WORDS])
        return header, self.counts, self.bias, self.multiplier, self.residual, self.shift, self.table, self.offsets, self.blocks


def packet_size(operation: int, groups: int, taps: int, first: bool = True, last: bool = True, terms: int = 1) -> int:
    """Bytes of a packet.

    >>> packet_size(PRODUCT, 1, 9), packet_size(PRODUCT, 1, 9, first=False, last=False)
    (800, 704)
    """
    header = Header(0, operation, 0, terms, 0, groups, *(0,) * 5, first, last, 0, 0)
    return _end(_places(header, taps))


def decode(raw: np.ndarray) -> Packet:
    """The packet that starts ``raw`` (u8). Raises ``CompileError`` if that can't be one."""
    if raw.size < HEADER_BYTES:
        raise CompileError(f"expected a packet of at least {HEADER_BYTES} bytes, got {raw.size}")
    header = Header(*raw[: 4 * len(WORDS)].view("<i4").tolist())
    known = 0 <= header.operation < len(OPERATIONS) and header.groups >= 0
    if not known or not _end(_places(header, 0)) <= header.size <= raw.size:
        raise CompileError(f"no packet: {header} in {raw.size} bytes")
    counts = _read(raw, _places(header, 0)[1])
    taps = int(counts.sum(dtype=np.int64))
    places = _places(header, taps)
    if _end(places) != header.size:
        raise CompileError(f"a packet of {taps} taps has {_end(places)} bytes, not {header.size}")
    _, counts, bias, multiplier, residual, shift, table, offsets, blocks = (_read(raw, place) for place in places)
    return Packet(header, counts, offsets, blocks, bias, multiplier, residual, shift, table)


Place = tuple[int, str, tuple[int, ...]]
BYTES = {"<i4": 4, "<u2": 2, "i1": 1}


def _places(header: Header, taps: int) -> list[Place]:
    """Where the parts are: offset, element type and shape, in the order in which they lie."""
    groups, sums = header.groups, header.operation in (PRODUCT, SUM)
    rescaled = groups if sums and header.last else 0
    parts: list[tuple[str, tuple[int, ...]]] = [
        ("<i4", (len(WORDS),)), ("<u2", (groups,)), ("<i4", (groups if sums and header.first else 0, GROUP)),
        ("<i4", (rescaled, GROUP)), ("<i4", (rescaled if header.terms == 2 else 0, GROUP)), ("<i4", (rescaled, GROUP)),
        ("i1", (256 if header.operation == TABLE else 0,)), ("<u2", (taps,)),
        ("i1", (taps if header.operation == PRODUCT else 0, GROUP, GROUP)),
    ]  # fmt: skip
    found, at = [], 0
    for dtype, shape in parts:
        found.append((at, dtype, shape))
        at = _aligned(at + BYTES[dtype] * prod(shape))
    return found


def _end(places: list[Place]) -> int:
    at, dtype, shape = places[-1]
    return _aligned(at + BYTES[dtype] * prod(shape))


def _read(raw: np.ndarray, place: Place) -> np.ndarray:
    at, dtype, shape = place
    return raw[at : at + BYTES[dtype] * prod(shape)].view(dtype).reshape(shape)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
