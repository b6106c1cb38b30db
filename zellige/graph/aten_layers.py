"""ATen's linear layers and normalisations: what each becomes in the graph.

A normalisation over statistics of its own input has no operator: it is written out in means, products and a root.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from zellige.graph.aten_call import UnsupportedFormError, Untranslated, axes, constant_only
from zellige.graph.builder import Constant, GraphBuilder, Value, filled


def linear(b: GraphBuilder, x: Value, weight: Value, bias: Value | None) -> Value:
    weight = constant_only(weight, "a weight that is computed from the input")
    if bias is not None:
        bias = constant_only(bias, "a bias that is computed from the input")
    if len(weight.shape) != 2:
        raise UnsupportedFormError(f"a weight of {len(weight.shape)} dimensions")
    return b.emit("linear", x, weight, bias)


def matrix_product(b: GraphBuilder, x: Value, matrix: Value) -> Value:
    """``x`` times a constant matrix, or vector, is a linear layer whose weight is its transpose."""
    if not isinstance(matrix, Constant):
        return vector_product(b, x, matrix) if not isinstance(x, Constant) else product_from_left(b, x, matrix)
    plain = matrix.array.reshape(matrix.shape[-2:]) if math.prod(matrix.shape[:-2]) == 1 else matrix.array
    if isinstance(x, Constant) or plain.ndim > 2 or len(b.shape(x)) < len(matrix.shape) - (plain.ndim == 1):
        raise UnsupportedFormError(f"a product of {list(b.shape(x))} and {list(matrix.shape)}")
    product = b.emit("linear", x, matrix.computed(plain[None, :] if plain.ndim == 1 else plain.T))
    return product if plain.ndim == 2 else b.reshape(product, b.shape(product)[:-1])


def product_from_left(b: GraphBuilder, matrix: Constant, x: Value) -> Value:
    """A constant matrix, or batch of one, times computed columns: what the matrix makes of each of them, turned back."""
    if len(matrix.shape) < 2 or len(b.shape(x)) < 2 or math.prod(matrix.shape[:-2]) != 1:
        return vector_product(b, matrix, x)
    if len(matrix.shape) > 2:
        x = b.reshape(x, (1,) * (len(matrix.shape) - len(b.shape(x))) + b.shape(x))
        matrix = matrix.computed(matrix.array.reshape(matrix.shape[-2:]))
    rank = len(b.shape(x))
    turn = (*range(rank - 2), rank - 1, rank - 2)
    return b.emit("transpose", b.step("linear", b.step("transpose", x, order=turn), matrix), order=turn)


def vector_product(b: GraphBuilder, x: Value, y: Value) -> Value:
    """A product of two values of which one is a vector (for each matrix of a batch): a sum of products."""
    left, right = b.shape(x), b.shape(y)
    known = isinstance(x, Constant) or isinstance(y, Constant)
    x = b.reshape(x, (1, *left)) if len(left) == 1 else x
    y = b.reshape(y, (*right, 1)) if len(right) == 1 else y
    (rows, inner), (_, columns) = b.shape(x)[-2:], b.shape(y)[-2:]
    if rows > 1 and columns > 1:
        raise UnsupportedFormError(f"a product of {list(left)} and {list(right)}" if known else "a product of two computed values")
    if columns == 1:
        y = b.reshape(y, (*b.shape(y)[:-2], 1, inner))
    else:
        x = b.reshape(x, (*b.shape(x)[:-2], inner, 1))
    products = b.step("multiply", x, y)
    rank = len(b.shape(products))
    result = b.emit("sum", products, dimensions=(rank - 1 if columns == 1 else rank - 2,), keep=True)
    lead = b.shape(result)[:-2]
    return b.reshape(result, (*lead, *([rows] if len(left) > 1 else []), *([columns] if len(right) > 1 else [])))


def addmm(b: GraphBuilder, bias: Value, x: Value, matrix: Value, beta: float, alpha: float) -> Value:
    matrix = constant_only(matrix, "a product of two computed values")
    if beta != 1 or alpha != 1:
        raise UnsupportedFormError("factors other than 1")
    if isinstance(bias, Constant) and bias.shape == (matrix.shape[1],):
        return b.emit("linear", x, matrix.computed(matrix.array.T), bias)
    return b.emit("add", b.step("linear", x, matrix.computed(matrix.array.T)), bias)


def eval_norm(b: GraphBuilder, x: Value, weight: Value | None, bias: Value | None, mean: Value, variance: Value,
              epsilon: float) -> Value:
    """A batch norm with kept statistics; parameters that are missing are ones and zeros."""
    channels = b.shape(x)[1]
    weight = weight if weight is not None else filled((channels,), 1.0)
    bias = bias if bias is not None else filled((channels,), 0.0)
    vectors = [constant_only(v, "parameters that are computed from the input") for v in (weight, bias, mean, variance)]
    return b.emit("batch_norm", x, *vectors, epsilon=float(epsilon))


def norm_in_either_mode(b: GraphBuilder, x: Value, weight: Value | None, bias: Value | None, mean: Value | None,
                        variance: Value | None, training: bool, momentum: float, epsilon: float, *rest: object) -> Value:
    if training or mean is None or variance is None:
        raise UnsupportedFormError("training mode")
    return eval_norm(b, x, weight, bias, mean, variance, epsilon)


UNREAD = Untranslated("statistics for the backward pass")


def batch_norm(b: GraphBuilder, x: Value, weight: Value | None, bias: Value | None, mean: Value, variance: Value,
               momentum: float, epsilon: float) -> tuple[Value | Untranslated, ...]:
    return (eval_norm(b, x, weight, bias, mean, variance, epsilon), UNREAD, UNREAD)


def normalize(b: GraphBuilder, x: Value, dimensions: Sequence[int], epsilon: float) -> Value:
    """(x − mean) / √(variance + epsilon), both over ``dimensions``."""
    over = tuple(dimensions)
    centred = b.step("subtract", x, b.step("mean", x, dimensions=over, keep=True))
    squares = b.step("activation", centred, function="square")
    spread = b.step("add", b.step("mean", squares, dimensions=over, keep=True), epsilon)
    return b.step("multiply", centred, b.step("activation", spread, function="rsqrt"))


def affine(b: GraphBuilder, x: Value, weight: Value | None, bias: Value | None, shape: Sequence[int]) -> Value:
    """``x`` · weight + bias, each in ``shape``."""
    if weight is not None:
        x = (b.emit if bias is None else b.step)("multiply", x, b.reshape(weight, shape))
    return x if bias is None else b.emit("add", x, b.reshape(bias, shape))


def layer_norm(b: GraphBuilder, x: Value, shape: Sequence[int], weight: Value | None, bias: Value | None,
               epsilon: float, *rest: object) -> Value:
    rank = len(b.shape(x))
    return affine(b, normalize(b, x, range(rank - len(shape), rank), epsilon), weight, bias, shape)


def group_norm(b: GraphBuilder, x: Value, groups: int, weight: Value | None, bias: Value | None, epsilon: float,
               *rest: object) -> Value:
    shape = b.shape(x)
    grouped = b.reshape(x, (shape[0], groups, math.prod(shape[1:]) // groups))
    flat = b.reshape(normalize(b, grouped, (2,), epsilon), shape)
    return affine(b, flat, weight, bias, (shape[1], *(1,) * (len(shape) - 2)))


def instance_norm(b: GraphBuilder, x: Value, weight: Value | None, bias: Value | None, mean: Value | None,
                  variance: Value | None, use_input: bool, momentum: float, epsilon: float, *rest: object) -> Value:
    if not use_input and mean is not None and variance is not None:
        return eval_norm(b, x, weight, bias, mean, variance, epsilon)
    shape = b.shape(x)
    normal = normalize(b, x, range(2, len(shape)), epsilon)
    return affine(b, normal, weight, bias, (shape[1], *(1,) * (len(shape) - 2)))


def batch_statistics_norm(b: GraphBuilder, x: Value, weight: Value | None, bias: Value | None, training: bool,
                          momentum: float, epsilon: float) -> tuple[Value | Untranslated, ...]:
    """A batch norm that keeps no running statistics takes those of the batch."""
    shape = b.shape(x)
    normal = normalize(b, x, [0, *range(2, len(shape))], epsilon)
    return (affine(b, normal, weight, bias, (shape[1], *(1,) * (len(shape) - 2))), UNREAD, UNREAD)


def variance(b: GraphBuilder, x: Value, dimensions: Any, correction: float | None, keep: bool) -> Value:
    """The mean square distance from the mean; a correction of 1 divides by one less than the count, a large one by 0."""
    shape = b.shape(x)
    over = axes(dimensions, len(shape))
    count = math.prod(shape[i] for i in over)
    centred = b.step("subtract", x, b.step("mean", x, dimensions=over, keep=True))
    squares = b.step("activation", centred, function="square")
    return b.emit("divide", b.step("sum", squares, dimensions=over, keep=keep),
                  max(0.0, count - (1.0 if correction is None else float(correction))))


def variance_and_mean(b: GraphBuilder, x: Value, dimensions: Any, correction: float | None,
                      keep: bool) -> tuple[Value, Value]:
    over = axes(dimensions, len(b.shape(x)))
    return variance(b, x, dimensions, correction, keep), b.emit("mean", x, dimensions=over, keep=keep)


def _biased(unbiased: bool) -> float:
    return 1.0 if unbiased else 0.0


LAYERS: dict[str, Callable[..., Any]] = {
    "linear.default": linear,
    "matmul.default": matrix_product,
    "mm.default": matrix_product,
    "bmm.default": matrix_product,
    "addmm.default": addmm,
    "batch_norm.default": norm_in_either_mode,
    "_native_batch_norm_legit_no_training.default": batch_norm,
    "_native_batch_norm_legit.no_stats": batch_statistics_norm,
    "layer_norm.default": layer_norm,
    "group_norm.default": group_norm,
    "instance_norm.default": instance_norm,
    "var.correction": lambda b, x, dimensions, correction, keep: variance(b, x, dimensions, correction, keep),
    "var_mean.correction": variance_and_mean,
    "var.dim": lambda b, x, dimensions, unbiased, keep: variance(b, x, dimensions, _biased(unbiased), keep),
}
