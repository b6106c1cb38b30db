"""Exponentials and logarithms on vectors: polynomials and a few bits of integer arithmetic, no calls into a math library.

The polynomials are minimax fits (weighted least squares after Lawson, relative error below 0.3 ulp) whose coefficients
were rounded to f32 one after the other, each time fitting the rest anew. Arguments are reduced exactly. Results stay within
2 ulp of the true value, subnormal ones included.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import llvmlite.ir as ir

from zellige.cpu.emitter import I32, Emitter

LOG2_E = 1.4426950408889634
LN2_HIGH, LN2_LOW = 0.693359375, -2.121944400546906e-4  # so few bits in the high part that its product with a count is exact
ROUND = 12582912.0  # 1.5 · 2²³: adding it rounds to an integer, found in the low bits of the sum
EXP_LOWEST, EXP_HIGHEST = -104.0, 89.0  # beyond these exp is 0 and infinite in f32

# (eʳ − 1 − r) / r² for |r| ≤ ln 2 / 2
EXP_TAIL = (0.4999999701976776, 0.1666654646396637, 0.04166744276881218, 0.008366253226995468, 0.0013869957765564322)
# (2 atanh s − 2 s) / s³ in powers of s², for s² ≤ 1/9
ATANH_TAIL = (0.6666667461395264, 0.3999894857406616, 0.28615209460258484, 0.2144395262002945, 0.24244895577430725)
# Φ(−a) · exp(a² / 2) / t in powers of t − 0.4, t = 1 / (1 + 0.4 a), for 0 ≤ a ≤ 15: the normal tail without its fast factor
NORMAL_TAIL = (0.25009801983833313, 0.30425670742988586, 0.21365220844745636, 0.013052322901785374, -0.10447878390550613,
               -0.023495711386203766, 0.07771007716655731, 0.0022543082013726234, -0.06198945268988609, 0.03312099725008011)
NORMAL_LOWEST = -15.0  # Φ of it is 0 in f32
# erf x / x − 1 in powers of x², for |x| ≤ ERF_NEAR
ERF_NEAR = 0.85
ERF_BODY = (0.12837916612625122, -0.37612590193748474, 0.11282864958047867, -0.026807287707924843, 0.0050577037036418915,
            -0.0006348518654704094)


def polynomial(b: Emitter, coefficients: Sequence[float], x: ir.Value) -> ir.Value:
    """Σ coefficients[k] · xᵏ, by Horner's rule."""
    *rest, value = coefficients
    result: ir.Value | float = value
    for coefficient in reversed(rest):
        result = b.multiply_add(result, x, coefficient)
    return result


def exp(b: Emitter, x: ir.Value) -> ir.Value:
    shifted, rest = _reduce(b, b.minimum(b.maximum(x, EXP_LOWEST), EXP_HIGHEST))
    square = b.fmul(rest, rest)
    fraction = b.fadd(b.multiply_add(polynomial(b, EXP_TAIL, rest), square, rest), b.splat(1.0))
    # 2ⁿ in two factors, so that neither overflows and a subnormal result is rounded once.
    count = _count(b, shifted)
    half = b.ashr(count, _integers(b, 1))
    return b.fmul(b.fmul(fraction, _power_of_two(b, half)), _power_of_two(b, b.sub(count, half)))


def exp_of_bounded(b: Emitter, x: ir.Value) -> ir.Value:
    """eˣ for −87 ≤ x ≤ 88.7, where it is a normal number: its exponent is added to the fraction's. Of NaN it is some number."""
    shifted, rest = _reduce(b, x)
    fraction = polynomial(b, (1.0, 1.0, *EXP_TAIL), rest)
    bits = b.add(b.bitcast(fraction, _integer_type(b)), b.shl(b.bitcast(shifted, _integer_type(b)), _integers(b, 23)))
    return b.bitcast(bits, b.vector)


def expm1_of_negative(b: Emitter, x: ir.Value) -> ir.Value:
    """eˣ − 1 for x ≤ 0, with all its digits near 0."""
    shifted, rest = _reduce(b, b.maximum(x, -20.0))
    scale = _power_of_two(b, _count(b, shifted))
    fraction = b.multiply_add(polynomial(b, EXP_TAIL, rest), b.fmul(rest, rest), rest)
    return b.multiply_add(scale, fraction, b.fsub(scale, b.splat(1.0)))


def expm1(b: Emitter, x: ir.Value) -> ir.Value:
    """eˣ − 1, with all its digits near 0; halved on the way, so that no power of two overflows before the result does."""
    shifted, rest = _reduce(b, b.minimum(b.maximum(x, -20.0), EXP_HIGHEST))
    scale = _power_of_two(b, b.sub(_count(b, shifted), _integers(b, 1)))
    fraction = b.multiply_add(polynomial(b, EXP_TAIL, rest), b.fmul(rest, rest), rest)
    half = b.multiply_add(scale, fraction, b.fsub(scale, b.splat(0.5)))
    return b.fadd(half, half)


def log(b: Emitter, x: ir.Value) -> ir.Value:
    return log_parts(b, x)[0]


def log1p(b: Emitter, x: ir.Value) -> ir.Value:
    """ln(1 + x), with all its digits near 0: the logarithm of the rounded sum, and its derivative times what rounding took."""
    total, lost = two_sum(b, b.splat(1.0), x)
    high, low = log_parts(b, total)
    finite = b.fcmp_ordered("<", b.elementwise("llvm.fabs", high), b.splat(float("inf")))
    return b.select(finite, b.fadd(high, b.fadd(low, b.fdiv(lost, total))), high)


def log_parts(b: Emitter, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """ln x, and the digits that its rounding took."""
    small = b.fcmp_ordered("<", x, b.splat(2.0 ** -126))
    normal = b.select(small, b.fmul(x, b.splat(2.0 ** 23)), x)
    # x = m · 2ᵉ with m in [√½, √2): the exponent counts from √½ on.
    above = b.sub(b.bitcast(normal, _integer_type(b)), _integers(b, _bits(0.70710678)))
    exponent = b.sub(b.ashr(above, _integers(b, 23)), b.select(small, _integers(b, 23), _integers(b, 0)))
    mantissa = b.bitcast(b.add(b.and_(above, _integers(b, 0x7FFFFF)), _integers(b, _bits(0.70710678))), b.vector)
    count = b.sitofp(exponent, b.vector)
    one = b.splat(1.0)
    over, under = b.fsub(mantissa, one), b.fadd(mantissa, one)
    ratio, ratio_low = _divide(b, over, under, b.fsub(mantissa, b.fsub(under, one)))
    square = b.fmul(ratio, ratio)
    twice = b.fadd(ratio, ratio)
    base = b.fmul(count, b.splat(LN2_HIGH))
    high = b.fadd(base, twice)
    low = b.fadd(b.fsub(twice, b.fsub(high, base)), b.fadd(ratio_low, ratio_low))
    low = b.multiply_add(count, LN2_LOW, low)
    low = b.multiply_add(b.fmul(square, ratio), polynomial(b, ATANH_TAIL, square), low)
    total = b.fadd(high, low)
    return _log_special_cases(b, x, total, b.fsub(low, b.fsub(total, high)))


def log1p_of_fraction(b: Emitter, x: ir.Value) -> ir.Value:
    """ln(1 + x) for 0 ≤ x ≤ 1."""
    ratio = b.fdiv(x, b.fadd(x, b.splat(2.0)))
    square = b.fmul(ratio, ratio)
    return b.multiply_add(b.fmul(square, ratio), polynomial(b, ATANH_TAIL, square), b.fadd(ratio, ratio))


def normal_tail(b: Emitter, magnitude: ir.Value) -> ir.Value:
    """Φ(−a), the normal distribution's tail, for 0 ≤ a ≤ 15; its relative error stays small however small it is."""
    inverse = b.fdiv(b.splat(1.0), b.multiply_add(magnitude, 0.4, 1.0))
    # One Newton step takes away the rounding of the divisor, to which the polynomial is sensitive near 0.
    error = b.multiply_add(b.fmul(inverse, b.splat(-0.4)), magnitude, b.fsub(b.splat(1.0), inverse))
    inverse = b.multiply_add(inverse, error, inverse)
    square = b.fmul(magnitude, magnitude)
    # What the square lost in rounding, times its derivative: exp would magnify it.
    lost = b.multiply_add(magnitude, magnitude, b.fneg(square))
    fast = exp(b, b.fmul(square, b.splat(-0.5)))
    slow = b.fmul(inverse, polynomial(b, NORMAL_TAIL, b.fsub(inverse, b.splat(0.4))))
    return b.fmul(fast, b.multiply_add(b.fmul(lost, b.splat(-0.5)), slow, slow))


def erf(b: Emitter, x: ir.Value) -> ir.Value:
    """The error function: an odd polynomial near 0, else 1 − 2 Φ(−√2 |x|) with the sign of x."""
    magnitude = b.elementwise("llvm.fabs", x)
    near = b.multiply_add(polynomial(b, ERF_BODY, b.fmul(x, x)), x, x)
    tail = normal_tail(b, b.minimum(b.fmul(magnitude, b.splat(2.0 ** 0.5)), -NORMAL_LOWEST))
    far = b.elementwise("llvm.copysign", b.multiply_add(tail, -2.0, 1.0), x)
    return b.select(b.fcmp_ordered("<", magnitude, b.splat(ERF_NEAR)), near, far)


def two_sum(b: Emitter, x: ir.Value, y: ir.Value) -> tuple[ir.Value, ir.Value]:
    """x + y rounded, and exactly what rounding took (Knuth)."""
    total = b.fadd(x, y)
    part = b.fsub(total, x)
    return total, b.fadd(b.fsub(x, b.fsub(total, part)), b.fsub(y, part))


def _reduce(b: Emitter, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """x = n · ln 2 + rest: ``ROUND`` + n, and the rest."""
    shifted = b.multiply_add(x, LOG2_E, ROUND)
    count = b.fsub(shifted, b.splat(ROUND))
    return shifted, b.multiply_add(count, -LN2_LOW, b.multiply_add(count, -LN2_HIGH, x))


def _count(b: Emitter, shifted: ir.Value) -> ir.Value:
    return b.sub(b.bitcast(shifted, _integer_type(b)), _integers(b, _bits(ROUND)))


def _power_of_two(b: Emitter, exponent: ir.Value) -> ir.Value:
    return b.bitcast(b.shl(b.add(exponent, _integers(b, 127)), _integers(b, 23)), b.vector)


def _divide(b: Emitter, over: ir.Value, under: ir.Value, under_lost: ir.Value) -> tuple[ir.Value, ir.Value]:
    """over / (under + under_lost): the quotient, and what it lacks."""
    quotient = b.fdiv(over, under)
    rest = b.multiply_add(b.fneg(quotient), under, over)
    rest = b.multiply_add(b.fneg(quotient), under_lost, rest)
    return quotient, b.fdiv(rest, under)


def _log_special_cases(b: Emitter, x: ir.Value, high: ir.Value, low: ir.Value) -> tuple[ir.Value, ir.Value]:
    """ln 0 = −∞, ln ∞ = ∞, NaN below 0 and for NaN; the low part is 0 there."""
    infinity = float("inf")
    regular = b.and_(b.fcmp_ordered(">", x, b.splat(0.0)), b.fcmp_ordered("<", x, b.splat(infinity)))
    special = b.select(b.fcmp_ordered("==", x, b.splat(0.0)), b.splat(-infinity),
                       b.select(b.fcmp_ordered("<", x, b.splat(0.0)), b.splat(float("nan")), x))
    return b.select(regular, high, special), b.select(regular, low, b.splat(0.0))


def _bits(value: float) -> int:
    return int(struct.unpack("<i", struct.pack("<f", value))[0])


def _integer_type(b: Emitter) -> ir.Type:
    return ir.VectorType(I32, b.isa.lanes)


def _integers(b: Emitter, value: int) -> ir.Value:
    return ir.Constant(_integer_type(b), [value] * b.isa.lanes)
