"""The epilogue: what a kernel does to a vector of results before it stores it.

An epilogue is a hashable tuple of steps, one of the fields that choose a kernel's variant. ``("add",)`` adds the vector
of another value at the same place (a residual connection); ``("activation", function, parameters)`` applies one of the
functions of ``activation.py``. The kernel knows where the operands of the additions lie, so it hands in how to load them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import llvmlite.ir as ir

from zellige.cpu.emitter import Emitter
from zellige.cpu.kernels.activation import Parameters, emit_activation

EpilogueStep = tuple[str] | tuple[str, str, Parameters]
Epilogue = tuple[EpilogueStep, ...]

ADD: EpilogueStep = ("add",)


def activation(function: str, parameters: Mapping[str, float | str] | None = None) -> EpilogueStep:
    """The step that applies an activation function.

    >>> activation("clamp", {"low": 0.0, "high": 6.0})
    ('activation', 'clamp', (('high', 6.0), ('low', 0.0)))
    """
    return ("activation", function, tuple(sorted((parameters or {}).items())))


def operand_count(epilogue: Epilogue) -> int:
    """How many values an epilogue reads besides the result itself."""
    return sum(step[0] == "add" for step in epilogue)


def emit_epilogue(b: Emitter, epilogue: Epilogue, value: ir.Value, load_operand: Callable[[int], ir.Value]) -> ir.Value:
    """The vector after all steps; ``load_operand(i)`` loads the vector that the i-th addition adds."""
    operand = 0
    for step in epilogue:
        if len(step) == 3:
            _, function, parameters = step
            value = emit_activation(b, function, parameters, value)
        else:
            value = b.fadd(value, load_operand(operand))
            operand += 1
    return value
