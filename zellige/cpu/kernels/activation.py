"""Activation functions, as a table from name to what is emitted for one vector.

Results lie within 4 ulp of the true value (5 in the tail of ``gelu``), or within 2·10⁻⁴³ where it is all but zero (3·10⁻³⁷ for
``sigmoid`` and ``silu``, which stop falling at −88.7: networks apply them to every pixel, so they are kept short). NaN stays
NaN but in ``sign``, as PyTorch has it. Infinite arguments give what PyTorch gives in float64, with one exception: ``silu`` at
−∞ is all but zero, not NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import llvmlite.ir as ir
import numpy as np

from zellige.cpu.emitter import Emitter
from zellige.cpu.kernels.vector_math import (
    NORMAL_LOWEST,
    erf,
    exp,
    exp_of_bounded,
    expm1,
    expm1_of_negative,
    log,
    log1p,
    log1p_of_fraction,
    log_parts,
    normal_tail,
    two_sum,
)

Parameters = tuple[tuple[str, float | str], ...]

INFINITY = math.inf
SIGMOID_LOWEST, SIGMOID_HIGHEST = -88.7, 87.0  # beyond these exp(−x) is no normal number
SIXTH = 1 / 6
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
TANH_GELU_SLOPE = 2 * math.sqrt(2 / math.pi)


def emit_activation(b: Emitter, function: str, parameters: Parameters, x: ir.Value) -> ir.Value:
    """The vector of ``function(x)``; parameters as in the table of operators, those left out take their defaults."""
    return ACTIVATIONS[function](b, x, **dict(parameters))


def clamp(b: Emitter, x: ir.Value, low: float = -INFINITY, high: float = INFINITY) -> ir.Value:
    return b.minimum(b.maximum(x, low), high)


def leaky_relu(b: Emitter, x: ir.Value, slope: float = 0.01) -> ir.Value:
    return b.select(positive(b, x), x, b.fmul(x, b.splat(slope)))


def elu(b: Emitter, x: ir.Value, alpha: float = 1.0) -> ir.Value:
    return b.select(positive(b, x), x, b.fmul(b.splat(alpha), expm1_of_negative(b, b.minimum(x, 0.0))))


def selu(b: Emitter, x: ir.Value) -> ir.Value:
    return b.fmul(elu(b, x, SELU_ALPHA), b.splat(SELU_SCALE))


def celu(b: Emitter, x: ir.Value, alpha: float = 1.0) -> ir.Value:
    bent = expm1_of_negative(b, b.fdiv(b.minimum(x, 0.0), b.splat(alpha)))
    return b.select(positive(b, x), x, b.fmul(b.splat(alpha), bent))


def gelu(b: Emitter, x: ir.Value, approximate: str = "none") -> ir.Value:
    return {"none": normal_gelu, "tanh": tanh_gelu}[approximate](b, x)


def normal_gelu(b: Emitter, x: ir.Value) -> ir.Value:
    """x · Φ(x), by the tail of Φ on the left, where 1 + erf would lose all digits."""
    tail = normal_tail(b, b.minimum(b.elementwise("llvm.fabs", x), -NORMAL_LOWEST))
    return b.fmul(x, b.select(positive(b, x), b.fsub(b.splat(1.0), tail), tail))


def tanh_gelu(b: Emitter, x: ir.Value) -> ir.Value:
    """x · sigmoid(u) with u = 2 √(2/π) (x + 0.044715 x³) in twice the precision: exp magnifies what u lacks."""
    (first, first_low), (second, second_low) = split(TANH_GELU_SLOPE), split(0.044715 * TANH_GELU_SLOPE)
    near = clamp(b, x, NORMAL_LOWEST, -NORMAL_LOWEST)
    square = b.fmul(near, near)
    square_low = b.multiply_add(near, near, b.fneg(square))
    product = b.fmul(square, b.splat(second))
    product_low = b.multiply_add(square, second, b.fneg(product))
    product_low = b.multiply_add(square_low, second, b.multiply_add(square, second_low, product_low))
    sum_, sum_low = two_sum(b, b.splat(first), product)
    sum_low = b.fadd(sum_low, b.fadd(product_low, b.splat(first_low)))
    u = b.fmul(near, sum_)
    u_low = b.multiply_add(near, sum_low, b.multiply_add(near, sum_, b.fneg(u)))
    small = exp(b, b.fneg(b.elementwise("llvm.fabs", u)))
    small = b.multiply_add(small, b.select(positive(b, x), b.fneg(u_low), u_low), small)
    return b.fdiv(b.fmul(x, b.select(positive(b, x), b.splat(1.0), small)), b.fadd(b.splat(1.0), small))


def sigmoid(b: Emitter, x: ir.Value) -> ir.Value:
    x = _bounded(b, x)
    return _sigmoid_times(b, x, b.multiply_add(x, 0.0, 1.0))  # 1, but NaN where x is


def silu(b: Emitter, x: ir.Value) -> ir.Value:
    return _sigmoid_times(b, _bounded(b, x), b.maximum(x, SIGMOID_LOWEST))


def _bounded(b: Emitter, x: ir.Value) -> ir.Value:
    return b.minimum(b.maximum(x, SIGMOID_LOWEST), SIGMOID_HIGHEST)


def _sigmoid_times(b: Emitter, x: ir.Value, factor: ir.Value) -> ir.Value:
    """factor / (1 + exp(−x)); where x is NaN, the factor must be."""
    return b.fdiv(factor, b.fadd(exp_of_bounded(b, b.fneg(x)), b.splat(1.0)))


def mish(b: Emitter, x: ir.Value) -> ir.Value:
    """x · tanh(softplus(x)) = x · n / (n + 2), n = eˣ (eˣ + 2); on the right both are divided by e²ˣ."""
    right = positive(b, x)
    small = exp(b, b.fneg(b.elementwise("llvm.fabs", x)))
    over = b.select(right, b.multiply_add(small, 2.0, 1.0), b.fmul(small, b.fadd(small, b.splat(2.0))))
    rest = b.select(right, b.fmul(b.fadd(small, small), small), b.splat(2.0))
    return b.fdiv(b.fmul(x, over), b.fadd(over, rest))


def tanh(b: Emitter, x: ir.Value) -> ir.Value:
    magnitude = b.elementwise("llvm.fabs", x)
    power = expm1_of_negative(b, b.fmul(magnitude, b.splat(-2.0)))
    return b.elementwise("llvm.copysign", b.fdiv(power, b.fadd(power, b.splat(2.0))), x)


def softplus(b: Emitter, x: ir.Value, beta: float = 1.0, threshold: float = 20.0) -> ir.Value:
    scaled = b.fmul(x, b.splat(beta))
    bend = log1p_of_fraction(b, exp(b, b.fneg(b.elementwise("llvm.fabs", scaled))))
    soft = b.fdiv(b.fadd(b.maximum(scaled, 0.0), bend), b.splat(beta))
    return b.select(b.fcmp_ordered(">", scaled, b.splat(threshold)), x, soft)


def hard_sigmoid(b: Emitter, x: ir.Value) -> ir.Value:
    return b.fmul(clamp(b, b.fadd(x, b.splat(3.0)), 0.0, 6.0), b.splat(SIXTH))


def hard_swish(b: Emitter, x: ir.Value) -> ir.Value:
    return b.fmul(x, hard_sigmoid(b, x))


def power(b: Emitter, x: ir.Value, exponent: float) -> ir.Value:
    """xᵉ: by multiplication and roots for the exponents of ``POWERS``, else exp(e · ln |x|) in twice the precision."""
    if exponent in POWERS:
        return POWERS[exponent](b, x)
    whole = float(exponent).is_integer()
    high, low = log_parts(b, b.elementwise("llvm.fabs", x))
    nearest, lacking = split(exponent)
    raw = b.fmul(high, b.splat(nearest))
    rest = b.multiply_add(high, lacking, b.multiply_add(low, nearest, b.multiply_add(high, nearest, b.fneg(raw))))
    value = exp(b, raw)
    near = b.and_(b.fcmp_ordered("<", b.elementwise("llvm.fabs", raw), b.splat(128.0)),
                  b.fcmp_ordered("<", value, b.splat(INFINITY)))
    value = b.select(near, b.multiply_add(value, rest, value), value)
    if whole:
        return b.elementwise("llvm.copysign", value, x) if exponent % 2 else value
    # Negative numbers have no fractional powers, though those of −∞ are those of ∞.
    negative = b.and_(b.fcmp_ordered("<", x, b.splat(0.0)), b.fcmp_ordered(">", x, b.splat(-INFINITY)))
    return b.select(negative, b.splat(math.nan), value)


def sign(b: Emitter, x: ir.Value) -> ir.Value:
    """−1, 0 or 1; 0 of NaN."""
    negative = b.fcmp_ordered("<", x, b.splat(0.0))
    return b.select(positive(b, x), b.splat(1.0), b.select(negative, b.splat(-1.0), b.splat(0.0)))


def positive(b: Emitter, x: ir.Value) -> ir.Value:
    """Lanes above 0."""
    return b.fcmp_ordered(">", x, b.splat(0.0))


def reciprocal(b: Emitter, x: ir.Value) -> ir.Value:
    return b.fdiv(b.splat(1.0), x)


def square(b: Emitter, x: ir.Value) -> ir.Value:
    return b.fmul(x, x)


def square_root(b: Emitter, x: ir.Value) -> ir.Value:
    return b.elementwise("llvm.sqrt", x)


def split(value: float) -> tuple[float, float]:
    """A number as an f32 number and the rest."""
    nearest = float(np.float32(value))
    return nearest, value - nearest


POWERS: dict[float, Callable[[Emitter, ir.Value], ir.Value]] = {
    0.0: lambda b, x: b.splat(1.0),
    1.0: lambda b, x: x,
    2.0: square,
    3.0: lambda b, x: b.fmul(square(b, x), x),
    4.0: lambda b, x: square(b, square(b, x)),
    0.5: square_root,
    -0.5: lambda b, x: reciprocal(b, square_root(b, x)),
    -1.0: reciprocal,
    -2.0: lambda b, x: square(b, reciprocal(b, x)),
}

ACTIVATIONS: dict[str, Callable[..., ir.Value]] = {
    "relu": lambda b, x: b.maximum(x, 0.0),
    "relu6": lambda b, x: clamp(b, x, 0.0, 6.0),
    "clamp": clamp,
    "hard_tanh": lambda b, x, low=-1.0, high=1.0: clamp(b, x, low, high),
    "leaky_relu": leaky_relu,
    "elu": elu,
    "selu": selu,
    "celu": celu,
    "gelu": gelu,
    "silu": silu,
    "mish": mish,
    "sigmoid": sigmoid,
    "hard_sigmoid": hard_sigmoid,
    "hard_swish": hard_swish,
    "tanh": tanh,
    "softplus": softplus,
    "exp": exp,
    "expm1": expm1,
    "log": log,
    "log1p": log1p,
    "sqrt": square_root,
    "rsqrt": lambda b, x: reciprocal(b, square_root(b, x)),
    "reciprocal": reciprocal,
    "absolute": lambda b, x: b.elementwise("llvm.fabs", x),
    "negate": lambda b, x: b.fneg(x),
    "sign": sign,
    "square": square,
    "power": power,
    "erf": erf,
}

# Made of straight lines: a few instructions each, no exponential.
STRAIGHT = frozenset({"relu", "relu6", "clamp", "hard_tanh", "leaky_relu", "hard_sigmoid", "hard_swish", "absolute", "negate",
                      "sign"})
