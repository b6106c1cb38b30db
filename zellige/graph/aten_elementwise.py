"""ATen's elementwise operators and reductions: what each becomes in the graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from zellige.graph.aten_call import Comparison, UnsupportedFormError, Untranslated, axes, axis, constant_only
from zellige.graph.builder import Constant, GraphBuilder, Operand, Value, filled


def activation(function: str, *parameters: str) -> Callable[..., Value]:
    """An activation whose arguments are its parameters in this order."""

    def build(b: GraphBuilder, x: Value, *values: Any) -> Value:
        given = {name: value if isinstance(value, str) else float(value)
                 for name, value in zip(parameters, values, strict=True)}
        return b.emit("activation", x, function=function, **given)

    return build


def binary(op: str) -> Callable[..., Value]:
    return lambda b, x, y: b.emit(op, x, y)


def scaled(op: str) -> Callable[..., Value]:
    """x ± alpha · y."""

    def build(b: GraphBuilder, x: Operand, y: Operand, alpha: float) -> Value:
        return b.emit(op, x, y if alpha == 1 else _times(b, y, alpha))

    return build


def _times(b: GraphBuilder, y: Operand, factor: float) -> Operand:
    return factor * y if isinstance(y, (int, float)) else b.step("multiply", y, factor)


def divide_rounded(b: GraphBuilder, x: Value, y: Operand, rounding: str | None) -> Value:
    if rounding is not None:
        raise UnsupportedFormError(f"division rounded by {rounding}")
    return b.emit("divide", x, y)


def clamp(b: GraphBuilder, x: Value, low: float | None, high: float | None) -> Value:
    """Some bounds have names of their own."""
    bounds = (-math.inf if low is None else float(low), math.inf if high is None else float(high))
    if bounds == (0.0, math.inf):
        return b.emit("activation", x, function="relu")
    if bounds == (0.0, 6.0):
        return b.emit("activation", x, function="relu6")
    return b.emit("activation", x, function="clamp", low=bounds[0], high=bounds[1])


def clamp_tensor(b: GraphBuilder, x: Value, low: Value | None, high: Value | None) -> Value:
    if low is not None:
        x = b.emit("maximum", x, low)
    return x if high is None else b.emit("minimum", x, high)


def elu(b: GraphBuilder, x: Value, alpha: float, scale: float, input_scale: float) -> Value:
    if scale != 1 or input_scale != 1:
        raise UnsupportedFormError("a scale other than 1")
    return b.emit("activation", x, function="elu", alpha=float(alpha))


def power(b: GraphBuilder, x: Value, exponent: float) -> Value:
    named = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}
    if float(exponent) in named:
        return b.emit("activation", x, function=named[float(exponent)])
    return b.emit("activation", x, function="power", exponent=float(exponent))


def prelu(b: GraphBuilder, x: Value, slope: Value) -> Value:
    slope = constant_only(slope, "a slope that is computed from the input")
    return b.emit("prelu", x, slope if slope.shape else b.reshape(slope, (1,)))


def threshold(b: GraphBuilder, x: Value, bound: float, value: float) -> Value:
    if bound == value:
        return clamp(b, x, bound, None)
    return b.emit("where", bound, x, value, x, comparison="greater_equal")


def comparison(kind: str, swapped: bool = False) -> Callable[..., Comparison]:
    """A comparison of two values, the other way round if ``swapped``."""
    reason = "a truth value that is more than the condition of a choice"
    return lambda b, x, y: Comparison(reason, kind, *((y, x) if swapped else (x, y)))


def where(b: GraphBuilder, condition: Comparison | Constant, x: Operand, y: Operand) -> Value:
    """``x`` where the condition holds, else ``y``; a mask that is known beforehand is compared with 0."""
    if isinstance(condition, Constant):
        condition = Comparison("", "not_equal", condition, 0.0)
    return b.emit("where", condition.left, condition.right, x, y, comparison=condition.kind)


def masked_fill(b: GraphBuilder, x: Value, mask: Comparison | Constant, value: Operand) -> Value:
    return where(b, mask, value, x)


def exponential(base: float) -> Callable[..., Value]:
    """base ** x, as exp(x · log base)."""
    return lambda b, x: b.emit("activation", b.step("multiply", x, math.log(base)), function="exp")


def power_of(b: GraphBuilder, base: float, x: Value) -> Value | Constant:
    """Powers of 1 are 1, also those that are no numbers."""
    if base <= 0:
        raise UnsupportedFormError(f"powers of {base}")
    return filled(b.shape(x), 1.0) if base == 1 else exponential(base)(b, x)


def log_sigmoid(b: GraphBuilder, x: Value) -> Value:
    """log σ(x) = −softplus(−x); the threshold lies where float64 no longer sees the difference."""
    flipped = b.step("activation", x, function="negate")
    return b.emit("activation", b.step("activation", flipped, function="softplus", beta=1.0, threshold=40.0),
                  function="negate")


def glu(b: GraphBuilder, x: Value, dimension: int) -> Value:
    at = axis(dimension, len(b.shape(x)))
    half = b.shape(x)[at] // 2
    value, gate = (b.step("slice", x, dimension=at, start=start, stop=start + half) for start in (0, half))
    return b.emit("multiply", value, b.step("activation", gate, function="sigmoid"))


def rrelu(b: GraphBuilder, x: Value, lower: float, upper: float, training: bool, generator: object) -> Value:
    if training:
        raise UnsupportedFormError("training mode")
    return b.emit("activation", x, function="leaky_relu", slope=(lower + upper) / 2.0)


def addcmul(op: str) -> Callable[..., Value]:
    """x + value · a · b, or with a / b."""
    return lambda b, x, first, second, value: b.emit(
        "add", x, _product(b, b.step(op, first, second), value))


def _product(b: GraphBuilder, x: Value, factor: float) -> Value:
    return x if factor == 1 else b.step("multiply", x, factor)


def lerp(b: GraphBuilder, x: Value, end: Value, share: Operand) -> Value:
    """From x, or from half of the way on back from the end, as PyTorch has it: what comes of infinities depends on it."""
    if isinstance(share, (int, float)) and share >= 0.5:
        return b.emit("subtract", end, b.step("multiply", b.step("subtract", end, x), 1.0 - share))
    return b.emit("add", x, b.step("multiply", b.step("subtract", end, x), share))


def reduction(op: str) -> Callable[..., Value]:
    def build(b: GraphBuilder, x: Value, dimensions: Any, keep: bool, dtype: object) -> Value:
        return b.emit(op, x, dimensions=axes(dimensions, len(b.shape(x))), keep=keep)

    return build


def whole(op: str) -> Callable[..., Value]:
    """A reduction over every dimension."""
    return lambda b, x, dtype: b.emit(op, x, dimensions=tuple(range(len(b.shape(x)))), keep=False)


def greatest(b: GraphBuilder, x: Value, dimensions: Any, keep: bool) -> Value:
    """The maximum over dimensions: a pool over everything, once they are the last."""
    shape = b.shape(x)
    gone = axes(dimensions, len(shape))
    stay = tuple(i for i in range(len(shape)) if i not in gone)
    if stay + gone != tuple(range(len(shape))):
        x = b.step("transpose", x, order=stay + gone)
    rows, columns = math.prod(shape[i] for i in stay), math.prod(shape[i] for i in gone)
    pooled = b.emit("adaptive_max_pool2d", b.reshape(x, (1, rows, columns, 1)), size=(1, 1))
    return b.reshape(pooled, [1 if i in gone else size for i, size in enumerate(shape) if keep or i in stay])


def log_sum_exp(b: GraphBuilder, x: Value, dimensions: Any, keep: bool) -> Value:
    """The largest taken out first, so that no exponential exceeds 1; the nearest finite number if it is infinite."""
    over = axes(dimensions, len(b.shape(x)))
    most = float(np.finfo(np.float32).max)
    largest = b.step("activation", greatest(b, x, list(over), True), function="clamp", low=-most, high=most)
    powers = b.step("activation", b.step("subtract", x, largest), function="exp")
    total = b.step("activation", b.step("sum", powers, dimensions=over, keep=True), function="log")
    result = b.emit("add", total, largest)
    return b.reshape(result, [size for i, size in enumerate(b.shape(result)) if keep or i not in over])


def least(b: GraphBuilder, x: Value, dimensions: Any, keep: bool) -> Value:
    flipped = greatest(b, b.step("activation", x, function="negate"), dimensions, keep)
    return b.emit("activation", flipped, function="negate")


def _without_indices(reduce: Callable[..., Value]) -> Callable[..., tuple[Value, Untranslated]]:
    return lambda b, x, dimension, keep: (reduce(b, x, dimension, keep), Untranslated("the indices of the extremes"))


def along(op: str) -> Callable[..., Value]:
    return lambda b, x, dimension, dtype: b.emit(op, x, dimension=axis(dimension, len(b.shape(x))))


CHOICES: dict[str, Callable[..., Value]] = {
    **dict.fromkeys(("where.self", "where.ScalarSelf", "where.ScalarOther", "where.Scalar"), where),
    "masked_fill.Scalar": masked_fill,
    "masked_fill.Tensor": masked_fill,
}
"""The operators that may read a comparison."""

COMPARISONS: dict[str, Callable[..., Comparison]] = {
    f"{name}.{form}": comparison(kind, swapped) for form in ("Scalar", "Tensor") for name, kind, swapped in (
        ("gt", "greater", False), ("ge", "greater_equal", False), ("lt", "greater", True), ("le", "greater_equal", True),
        ("eq", "equal", False), ("ne", "not_equal", False))}

ELEMENTWISE: dict[str, Callable[..., Any]] = {
    **CHOICES,
    **COMPARISONS,
    **{f"{name}.default": activation(function) for name, function in {
        "relu": "relu", "relu6": "relu6", "selu": "selu", "silu": "silu", "mish": "mish", "sigmoid": "sigmoid",
        "hardsigmoid": "hard_sigmoid", "hardswish": "hard_swish", "tanh": "tanh", "exp": "exp", "log": "log",
        "sqrt": "sqrt", "rsqrt": "rsqrt", "reciprocal": "reciprocal", "abs": "absolute", "neg": "negate",
        "square": "square", "expm1": "expm1", "log1p": "log1p", "sign": "sign", "erf": "erf"}.items()},
    "leaky_relu.default": activation("leaky_relu", "slope"),
    "elu.default": elu,
    "celu.default": activation("celu", "alpha"),
    "gelu.default": activation("gelu", "approximate"),
    "softplus.default": activation("softplus", "beta", "threshold"),
    "hardtanh.default": clamp,
    "clamp.default": clamp,
    "clamp.Tensor": clamp_tensor,
    "clamp_min.default": lambda b, x, low: clamp(b, x, low, None),
    "clamp_max.default": lambda b, x, high: clamp(b, x, None, high),
    "pow.Tensor_Scalar": power,
    "pow.Scalar": power_of,
    "exp2.default": exponential(2.0),
    "log2.default": lambda b, x: b.emit("multiply", b.step("activation", x, function="log"), 1 / math.log(2.0)),
    "log10.default": lambda b, x: b.emit("multiply", b.step("activation", x, function="log"), 1 / math.log(10.0)),
    "threshold.default": threshold,
    "prelu.default": prelu,
    "_prelu_kernel.default": prelu,
    "log_sigmoid.default": log_sigmoid,
    "glu.default": glu,
    "rrelu.default": rrelu,
    "add.Tensor": scaled("add"),
    "add.Scalar": scaled("add"),
    "sub.Tensor": scaled("subtract"),
    "sub.Scalar": scaled("subtract"),
    "rsub.Scalar": lambda b, x, y, alpha: scaled("subtract")(b, y, x, alpha),
    "rsub.Tensor": lambda b, x, y, alpha: scaled("subtract")(b, y, x, alpha),
    "mul.Tensor": binary("multiply"),
    "mul.Scalar": binary("multiply"),
    "div.Tensor": binary("divide"),
    "div.Scalar": binary("divide"),
    "div.Tensor_mode": divide_rounded,
    "maximum.default": binary("maximum"),
    "max.other": binary("maximum"),
    "minimum.default": binary("minimum"),
    "min.other": binary("minimum"),
    "addcmul.default": addcmul("multiply"),
    "addcdiv.default": addcmul("divide"),
    "lerp.Scalar": lerp,
    "lerp.Tensor": lerp,
    "mean.dim": reduction("mean"),
    "mean.default": whole("mean"),
    "sum.dim_IntList": reduction("sum"),
    "sum.default": whole("sum"),
    "amax.default": greatest,
    "max.default": lambda b, x: greatest(b, x, None, False),
    "min.default": lambda b, x: least(b, x, None, False),
    "amin.default": least,
    "logsumexp.default": log_sum_exp,
    "max.dim": _without_indices(greatest),
    "min.dim": _without_indices(least),
    "softmax.int": along("softmax"),
    "_softmax.default": along("softmax"),
    "log_softmax.int": along("log_softmax"),
    "_log_softmax.default": along("log_softmax"),
}
