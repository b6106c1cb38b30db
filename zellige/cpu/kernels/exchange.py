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
        nothing = ir.Constant(VECTOR, [0.0] * LANES)
        with b.loop(begin, end) as meeting:
            first = b.mul(meeting, b.add(tries, ir.Constant(I64, 1)))
            met = _two_below(b, _drawn(b, seed, first), (pieces, pieces))
            with b.if_then(b.icmp_signed("!=", *met), likely=True):
                starts = [b.mul(piece, length) for piece in met]
                lengths = [_smaller(b, length, b.sub(lines, start)) for start in starts]
                here, there = (b.at(excesses, piece, width) for piece in met)
                here_total, there_total = (b.at(totals, piece) for piece in met)
                with b.loop(b.add(first, ir.Constant(I64, 1)), b.add(b.add(first, tries), ir.Constant(I64, 1))) as number:
                    drawn = _drawn(b, seed, number)
                    spots = [b.at(places, b.add(start, place), element=I32)
                             for start, place in zip(starts, _two_below(b, drawn, lengths), strict=True)]
                    standing = [b.load(spot, typ=I32, align=4) for spot in spots]
                    leaving, coming = (b.at(sums, b.sext(line, I64), width) for line in standing)
                    total = b.variable(nothing)
                    with b.loop(0, width, LANES) as at:
                        one, other = _exchanged(b, leaving, coming, here, there, at)
                        b.store(b.fadd(b.load(total, typ=VECTOR), b.fadd(_magnitude(b, one), _magnitude(b, other))), total)
                    before = b.fadd(b.load_scalar(here_total), b.load_scalar(there_total))
                    gain = b.fsub(_all_lanes(b, b.load(total, typ=VECTOR)), before)
                    bound = b.load_scalar(bounds, b.lshr(drawn, ir.Constant(I64, 2 * PLACE_BITS)))
                    with b.if_then(b.fcmp_ordered(">", gain, bound), likely=False):
                        here_sum, there_sum = b.variable(nothing), b.variable(nothing)
                        with b.loop(0, width, LANES) as at:
                            after = _exchanged(b, leaving, coming, here, there, at)
                            for excess, value, total in zip((here, there), after, (here_sum, there_sum), strict=True):
                                b.store(value, b.at(excess, at), align=4)
                                b.store(b.fadd(b.load(total, typ=VECTOR), _magnitude(b, value)), total)
                        for total, place in ((here_sum, here_total), (there_sum, there_total)):
                            b.store(_all_lanes(b, b.load(total, typ=VECTOR)), place, align=4)
                        for spot, line in zip(spots, reversed(standing), strict=True):
                            b.store(line, spot, align=4)
        b.ret_void()


def _drawn(b: Emitter, seed: ir.Value, number: ir.Value) -> ir.Value:
    """64 random bits for a try."""
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


def _exchanged(b: Emitter, leaving: ir.Value, coming: ir.Value, here: ir.Value, there: ir.Value,
               at: ir.Value) -> tuple[ir.Value, ir.Value]:
    """``LANES`` excesses of both pieces as the exchange makes them."""
    old, new, one, other = (b.load(b.at(pointer, at), typ=VECTOR, align=4) for pointer in (leaving, coming, here, there))
    change = b.fsub(new, old)
    return b.fadd(one, change), b.fsub(other, change)


def _magnitude(b: Emitter, value: ir.Value) -> ir.Value:
    return b.intrinsic(f"llvm.fabs.v{LANES}f32", VECTOR, value)


def _all_lanes(b: Emitter, values: ir.Value) -> ir.Value:
    """The sum of a vector's lanes, added in halves."""
    count = LANES
    while count > 1:
        count //= 2
        values = b.fadd(*(b.shuffle(values, values, range(half, half + count)) for half in (0, count)))
    return b.extract_element(values, ir.Constant(I32, 0))
