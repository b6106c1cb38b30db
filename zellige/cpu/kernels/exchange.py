"""Exchanges of two lines at random, each taken if it gains enough: the inner loop of ``prune/clustering``.

Lines stand at places, and places make up pieces. A line has a sum in every block that its piece is cut into, a piece has an excess
in every one. If lines of two pieces change places, the pieces' excesses change by the difference of the lines' sums. What that
adds to Σ |excess| is its gain; it is taken if that is more than a bound drawn from ``bounds``, which makes it a step of Metropolis
et al. (1953) where the bounds are T · ln u. Two pieces meet for several tries, so that their lines come from a near cache.

Random numbers go by counting: that of number n is SplitMix64 (Steele et al., OOPSLA 2014) of the seed and n, and a meeting has one
and each of its tries one. Sums are made in vectors of ``LANES``, whatever the machine's are, and lanes are added in halves, so
every machine takes the same exchanges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import llvmlite.ir as ir

from zellige.cpu.emitter import F32, I32, I64, Emitter
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.kernel import Kernel

LANES = 16
VECTOR = ir.VectorType(F32, LANES)
BOUNDS = 1 << 12
PLACE_BITS = 26

GAMMA, FIRST_FACTOR, SECOND_FACTOR = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


@dataclass(frozen=True)
class ExchangeKernel(Kernel):
    """An item is a meeting of two pieces at random, with so many ``tries``. Each builds on those before, so one thread does all.

    ``places`` says which of the ``lines`` stands where: ``length`` of them are a piece, but for the last one, which may be shorter.
    ``sums`` are lines × width, ``excesses`` pieces × width, with a width that is a multiple of ``LANES``; ``totals`` are the
    pieces' Σ |excess|. Places, excesses and totals are changed.
    """

    SLOTS: ClassVar[tuple[str, ...]] = (
        "places", "sums", "excesses", "totals", "bounds", "lines", "pieces", "length", "width", "tries", "seed")

    def emit(self, module: ir.Module, isa: Isa) -> None:
        b, slots, begin, end, _ = self.entry(module, isa)
        places, sums, excesses, totals, bounds = (self.slot(b, slots, name) for name in self.SLOTS[:5])
        lines, pieces, length, width, tries, seed = (self.slot(b, slots, name, I64) for name in self.SLOTS[5:])
        one = ir.Constant(I64, 1)
        with b.loop(begin, end) as meeting:
            number = b.mul(meeting, b.add(tries, one))
            met = _two_below(b, _drawn(b, seed, number), (pieces, pieces))
            with b.if_then(b.icmp_signed("!=", *met), likely=True):
                starts = [b.mul(piece, length) for piece in met]
                sides = [_Piece(start, _smaller(b, length, b.sub(lines, start)), b.at(excesses, piece, width), b.at(totals, piece))
                         for start, piece in zip(starts, met, strict=True)]
                with b.loop(b.add(number, one), b.add(b.add(number, tries), one)) as trial:
                    _emit_try(b, _drawn(b, seed, trial), sides, places, sums, bounds, width)
        b.ret_void()


@dataclass(frozen=True)
class _Piece:
    """Of a piece: its first place, how many it has, and where its excesses and their total lie."""

    start: ir.Value
    length: ir.Value
    excesses: ir.Value
    total: ir.Value


def _emit_try(b: Emitter, drawn: ir.Value, sides: Sequence[_Piece], places: ir.Value, sums: ir.Value, bounds: ir.Value,
              width: ir.Value) -> None:
    """Exchange a line of one piece for one of the other, if that gains enough."""
    within = _two_below(b, drawn, [side.length for side in sides])
    spots = [b.at(places, b.add(side.start, place), element=I32) for side, place in zip(sides, within, strict=True)]
    standing = [b.load(spot, typ=I32, align=4) for spot in spots]
    leaving, coming = (b.at(sums, b.sext(line, I64), width) for line in standing)

    def exchanged(at: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Some excesses of both pieces as the exchange makes them."""
        pointers = (leaving, coming, *(side.excesses for side in sides))
        old, new, here, there = (b.load(b.at(pointer, at), typ=VECTOR, align=4) for pointer in pointers)
        change = b.fsub(new, old)
        return b.fadd(here, change), b.fsub(there, change)

    both = _Sum(b)
    with b.loop(0, width, LANES) as at:
        here, there = exchanged(at)
        both.add(b.fadd(_magnitude(b, here), _magnitude(b, there)))
    gain = b.fsub(both.of_all_lanes(), b.fadd(*(b.load_scalar(side.total) for side in sides)))
    bound = b.load_scalar(bounds, b.lshr(drawn, ir.Constant(I64, 2 * PLACE_BITS)))
    with b.if_then(b.fcmp_ordered(">", gain, bound), likely=False):
        totals = [_Sum(b) for _ in sides]
        with b.loop(0, width, LANES) as at:
            for side, total, after in zip(sides, totals, exchanged(at), strict=True):
                b.store(after, b.at(side.excesses, at), align=4)
                total.add(_magnitude(b, after))
        for side, total, spot, line in zip(sides, totals, spots, reversed(standing), strict=True):
            b.store(total.of_all_lanes(), side.total, align=4)
            b.store(line, spot, align=4)


def _magnitude(b: Emitter, value: ir.Value) -> ir.Value:
    return b.intrinsic(f"llvm.fabs.v{LANES}f32", VECTOR, value)


class _Sum:
    """A sum of vectors."""

    def __init__(self, builder: Emitter) -> None:
        self._b = builder
        self._place = builder.variable(ir.Constant(VECTOR, [0.0] * LANES))

    def add(self, value: ir.Value) -> None:
        self._b.store(self._b.fadd(self._b.load(self._place, typ=VECTOR), value), self._place)

    def of_all_lanes(self) -> ir.Value:
        """One number, of lanes added in halves."""
        b, count = self._b, LANES
        values = b.load(self._place, typ=VECTOR)
        while count > 1:
            count //= 2
            values = b.fadd(*(b.shuffle(values, values, range(half, half + count)) for half in (0, count)))
        return b.extract_element(values, ir.Constant(I32, 0))


def _drawn(b: Emitter, seed: ir.Value, number: ir.Value) -> ir.Value:
    """64 random bits: those of this number."""
    mixed = b.add(seed, b.mul(number, ir.Constant(I64, GAMMA)))
    for shift, factor in ((30, FIRST_FACTOR), (27, SECOND_FACTOR)):
        mixed = b.mul(b.xor(mixed, b.lshr(mixed, ir.Constant(I64, shift))), ir.Constant(I64, factor))
    return b.xor(mixed, b.lshr(mixed, ir.Constant(I64, 31)))


def _two_below(b: Emitter, drawn: ir.Value, limits: Sequence[ir.Value]) -> list[ir.Value]:
    """Two numbers below limits, from the low bits of what was drawn: each some bits as a fraction, scaled."""
    parts = (b.and_(b.lshr(drawn, ir.Constant(I64, shift)), ir.Constant(I64, (1 << PLACE_BITS) - 1)) for shift in (0, PLACE_BITS))
    return [b.lshr(b.mul(part, limit), ir.Constant(I64, PLACE_BITS)) for part, limit in zip(parts, limits, strict=True)]


def _smaller(b: Emitter, one: ir.Value, other: ir.Value) -> ir.Value:
    return b.select(b.icmp_signed("<", one, other), one, other)
