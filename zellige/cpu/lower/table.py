"""Which function lowers which operator, and which epilogues and constants its kernels take."""

from __future__ import annotations

from collections.abc import Callable

from zellige.cpu.lower.arithmetic import lower_elementwise
from zellige.cpu.lower.convolution_paths import lower_convolution
from zellige.cpu.lower.lowering import Lowering
from zellige.cpu.lower.moves import MOVES, lower_concat, lower_move
from zellige.cpu.lower.pooling import lower_adaptive_pool, lower_pool
from zellige.cpu.lower.product import lower_linear
from zellige.cpu.lower.reduction import lower_reduction
from zellige.cpu.lower.resampling import lower_interpolate
from zellige.cpu.lower.softmax import lower_softmax
from zellige.graph.ir import Node

ARITHMETIC = ("add", "subtract", "multiply", "divide", "maximum", "minimum", "where", "scale_shift", "activation", "prelu")
POOLS = ("max_pool2d", "average_pool2d", "adaptive_average_pool2d", "adaptive_max_pool2d")

LOWERINGS: dict[str, Callable[[Lowering, Node], None]] = {
    "conv2d": lower_convolution,
    "linear": lower_linear,
    **dict.fromkeys(ARITHMETIC, lower_elementwise),
    **dict.fromkeys(("max_pool2d", "average_pool2d"), lower_pool),
    **dict.fromkeys(("adaptive_average_pool2d", "adaptive_max_pool2d"), lower_adaptive_pool),
    **dict.fromkeys(("mean", "sum"), lower_reduction),
    **dict.fromkeys(("softmax", "log_softmax"), lower_softmax),
    "interpolate": lower_interpolate,
    **dict.fromkeys(MOVES, lower_move),
    "concat": lower_concat,
}

EPILOGUES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("conv2d", "linear", *ARITHMETIC, *POOLS), ("add", "activation")),
    **dict.fromkeys(("mean", "sum"), ("activation",)),
}
MOST_ADDS = 1

TAKE_CONSTANTS = frozenset({*ARITHMETIC, *MOVES, "concat"})
"""Operators whose first operand may be a constant; of the others, passes leave none that reads nothing else."""
