"""The activation functions in float64: what their names mean, by their textbook definitions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray
_erf = np.vectorize(math.erf, otypes=[np.float64])
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


def _clamp(x: Array, low: float, high: float) -> Array:
    return np.minimum(np.maximum(x, low), high)


def _sigmoid(x: Array) -> Array:
    """1 / (1 + e⁻ˣ), written with e^−|x| so that nothing overflows."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def _elu(x: Array, alpha: float) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0)))


def _gelu(x: Array, approximate: str) -> Array:
    if approximate == "tanh":
        return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0)))


def _softplus(x: Array, beta: float, threshold: float) -> Array:
    return np.where(x * beta > threshold, x, np.logaddexp(0.0, x * beta) / beta)


FUNCTIONS: Mapping[str, Callable[..., Array]] = {
    "relu": lambda x: np.maximum(x, 0.0),
    "relu6": lambda x: _clamp(x, 0.0, 6.0),
    "clamp": _clamp,
    "hard_tanh": _clamp,
    "leaky_relu": lambda x, slope: np.where(x > 0, x, slope * x),
    "elu": _elu,
    "selu": lambda x: SELU_SCALE * _elu(x, SELU_ALPHA),
    "celu": lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0) / alpha)),
    "gelu": _gelu,
    "silu": lambda x: x * _sigmoid(x),
    "mish": lambda x: x * np.tanh(np.logaddexp(0.0, x)),
    "sigmoid": _sigmoid,
    "hard_sigmoid": lambda x: _clamp(x + 3.0, 0.0, 6.0) / 6.0,
    "hard_swish": lambda x: x * _clamp(x + 3.0, 0.0, 6.0) / 6.0,
    "tanh": np.tanh,
    "softplus": _softplus,
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "reciprocal": lambda x: 1.0 / x,
    "absolute": np.abs,
    "negate": np.negative,
    "sign": lambda x: (x > 0) * 1.0 - (x < 0),
    "square": np.square,
    "power": lambda x, exponent: np.power(x, exponent),
    "erf": _erf,
}


def activate(attributes: Mapping[str, Any], x: Array) -> Array:
    """``attributes["function"]`` with its parameters on every element; NaN and infinities as IEEE 754 has them."""
    parameters = {name: value for name, value in attributes.items() if name != "function"}
    with np.errstate(all="ignore"):
        return FUNCTIONS[attributes["function"]](x, **parameters)
