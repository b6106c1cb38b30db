"""Activation functions, as a table from name to what is emitted for one vector.

NaN stays NaN. Where a product such as x · sigmoid(x) has no value at −∞, the limit is taken.
"""

from __future__ import annotations

from collections.abc import Callable

import llvmlite.ir as ir

from zellige.cpu.emitter import Emitter

Parameters = tuple[tuple[str, float | str], ...]


def emit_activation(b: Emitter, function: str, parameters: Parameters, x: ir.Value) -> ir.Value:
    """The vector of ``function(x)``; parameters as in the table of operators, those left out take their defaults."""
    return ACTIVATIONS[function](b, x, **dict(parameters))


def clamp(b: Emitter, x: ir.Value, low: float, high: float) -> ir.Value:
    return b.minimum(b.maximum(x, low), high)


ACTIVATIONS: dict[str, Callable[..., ir.Value]] = {
    "relu": lambda b, x: b.maximum(x, 0.0),
    "relu6": lambda b, x: clamp(b, x, 0.0, 6.0),
    "clamp": clamp,
    "hard_tanh": lambda b, x, low=-1.0, high=1.0: clamp(b, x, low, high),
}
