"""Exchanges of two lines at random, each taken if it gains enough: the inner loop of ``prune/clustering``.

Lines stand at places, and places make up pieces. A line has a sum in every block that its piece is cut into, a piece has an excess
in every one. If the lines of two places change places, their pieces' excesses change by the difference of the lines' sums. What
that adds to Σ |excess| is its gain; it is taken if that is more than a bound drawn from ``bounds``, which makes it a step of
Metropolis et al. (1953) where the bounds are T · ln u.

Numbers are drawn by counting: the try of number n looks at SplitMix64 (Steele et al., OOPSLA 2014) of seed and n. All sums are
made in vectors of ``LANES`` whatever the machine's are, and their lanes are added in halves, so every machine takes the same
exchanges.
"""

from __future__ import annotations

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
MOST_LINES = 1 << PLACE_BITS

GAMMA, FIRST_FACTOR, SECOND_FACTOR = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


@dataclass(frozen=True)
class ExchangeKernel(Kernel):
    """An item is a try, and each builds on those before, so one thread does them all.

    ``place_lines`` and ``place_pieces`` say which line stands at a place, and to which piece it belongs; ``sums`` are lines × width,
    ``excesses`` pieces × width, with a width that is a multiple of ``LANES``; ``totals`` are the pieces' Σ |excess|. Lines, excesses
    and totals are changed.
    """

    SLOTS: ClassVar[tuple[str, ...]] = ("place_lines", "place_pieces", "sums", "excesses", "totals", "bounds", "lines", "width", "seed")

    def emit(self, module: ir.Module, isa: Isa) -> None:
        b, slots, begin, end, _ = self.entry(module, isa)
        place_lines, place_pieces, sums, excesses, totals, bounds = (self.slot(b, slots, name) for name in self.SLOTS[:6])
        lines, width, seed = (self.slot(b, slots, name, I64) for name in self.SLOTS[6:])
        nothing = ir.Constant(VECTOR, [0.0] * LANES)
        with b.loop(begin, end) as number:
            drawn = _drawn(b, seed, number)
            places = [_below(b, b.lshr(drawn, ir.Constant(I64, shift)), lines) for shift in (0, PLACE_BITS)]
            pieces = [b.load_index(place_pieces, place) for place in places]
            with b.if_then(b.icmp_signed("!=", *pieces), likely=True):
                standing = [b.load(b.at(place_lines, place, element=I32), typ=I32, align=4) for place in places]
                leaving, coming = (b.at(sums, b.sext(line, I64), width) for line in standing)
                here, there = (b.at(excesses, piece, width) for piece in pieces)
                here_total, there_total = (b.at(totals, piece) for piece in pieces)
                total = b.variable(nothing)
                with b.loop(0, width, LANES) as start:
                    one, other = _exchanged(b, leaving, coming, here, there, start)
                    b.store(b.fadd(b.load(total, typ=VECTOR), b.fadd(_magnitude(b, one), _magnitude(b, other))), total)
                before = b.fadd(b.load_scalar(here_total), b.load_scalar(there_total))
                gain = b.fsub(_all_lanes(b, b.load(total, typ=VECTOR)), before)
                bound = b.load_scalar(bounds, b.lshr(drawn, ir.Constant(I64, 2 * PLACE_BITS)))
                with b.if_then(b.fcmp_ordered(">", gain, bound), likely=False):
                    here_sum, there_sum = b.variable(nothing), b.variable(nothing)
                    with b.loop(0, width, LANES) as start:
                        after = _exchanged(b, leaving, coming, here, there, start)
                        for excess, value, total in zip((here, there), after, (here_sum, there_sum), strict=True):
                            b.store(value, b.at(excess, start), align=4)
                            b.store(b.fadd(b.load(total, typ=VECTOR), _magnitude(b, value)), total)
                    for total, place in ((here_sum, here_total), (there_sum, there_total)):
                        b.store(_all_lanes(b, b.load(total, typ=VECTOR)), place, align=4)
                    for place, line in zip(places, reversed(standing), strict=True):
                        b.store(line, b.at(place_lines, place, element=I32), align=4)
        b.ret_void()


def _drawn(b: Emitter, seed: ir.Value, number: ir.Value) -> ir.Value:
    """64 random bits for a try."""
    mixed = b.add(seed, b.mul(number, ir.Constant(I64, GAMMA)))
    for shift, factor in ((30, FIRST_FACTOR), (27, SECOND_FACTOR)):
        mixed = b.mul(b.xor(mixed, b.lshr(mixed, ir.Constant(I64, shift))), ir.Constant(I64, factor))
    return b.xor(mixed, b.lshr(mixed, ir.Constant(I64, 31)))


def _below(b: Emitter, drawn: ir.Value, limit: ir.Value) -> ir.Value:
    """The low bits as a fraction, scaled to a number below a limit."""
    bits = b.and_(drawn, ir.Constant(I64, MOST_LINES - 1))
    return b.lshr(b.mul(bits, limit), ir.Constant(I64, PLACE_BITS))


def _exchanged(b: Emitter, leaving: ir.Value, coming: ir.Value, here: ir.Value, there: ir.Value,
               start: ir.Value) -> tuple[ir.Value, ir.Value]:
    """``LANES`` excesses of both pieces as the exchange makes them."""
    old, new, one, other = (b.load(b.at(pointer, start), typ=VECTOR, align=4) for pointer in (leaving, coming, here, there))
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
