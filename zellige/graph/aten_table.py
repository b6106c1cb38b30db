"""The table of ATen: operator → the function that writes it into the graph. Supporting an operator is adding a row.

Keys are names of overloads without the leading ``aten.``. The sets below are operators that need no function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from zellige.graph.aten_elementwise import ELEMENTWISE
from zellige.graph.aten_layers import LAYERS
from zellige.graph.aten_shapes import SHAPES
from zellige.graph.aten_windows import WINDOWS

ATEN: Mapping[str, Callable[..., Any]] = {**WINDOWS, **LAYERS, **ELEMENTWISE, **SHAPES}

CHECKS = frozenset({"_assert_tensor_metadata.default", "_assert_scalar.default", "_assert_async.msg",
                    "sym_constrain_range_for_size.default"})
"""Operators that only check, and make no value."""

UNWRITTEN = frozenset({"empty.memory_format", "empty_strided.default", "empty_permuted.default", "empty_like.default",
                       "new_empty.default", "new_empty_strided.default"})
"""Operators whose result is memory that nothing was written to, which a model fills before it reads."""

SHAPE_ONLY = UNWRITTEN | {"full_like.default", "zeros_like.default", "ones_like.default", "new_zeros.default",
                          "new_ones.default", "new_full.default", "fill.Scalar", "zero.default"}
"""Operators whose result follows from the shape of their first argument alone."""

BROADCASTING = frozenset({
    "add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor", "maximum.default", "minimum.default", "max.other",
    "min.other"})
"""Operators that repeat a smaller operand by themselves: an ``expand`` for their sake leaves no node."""
