"""Triton's interpreter for bfloat16, and memory with guards around it.

The interpreter keeps bfloat16 as its bits, and its product takes them for whole numbers. Here they are widened first.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime import interpreter

MARGIN = 24


def widen_bfloat16(patch: pytest.MonkeyPatch) -> None:
    """Make the interpreter's product right for bfloat16."""
    builder = interpreter.InterpreterBuilder
    product = builder.create_dot

    def wide(handle: Any) -> Any:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return interpreter.TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    patch.setattr(builder, "create_dot", lambda self, a, b, *rest: product(self, wide(a), wide(b), *rest))


class Guarded:
    """A tensor of two dimensions or more inside a larger one full of NaN: before it, behind it, and after every row.

    Rows are what the last dimension holds, or, with ``planes``, what all but the first do.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, margin: int = MARGIN, planes: bool = False):
        rows, row = (shape[0], prod(shape[1:])) if planes else (prod(shape[:-1]), shape[-1])
        self.around = torch.full((rows + 2 * margin, row + margin), float("nan"), dtype=dtype)
        self.flat = self.around[margin:margin + rows, :row]
        self.inside = self.flat.view(shape)

    def filled(self, values: torch.Tensor) -> torch.Tensor:
        self.inside.copy_(values)
        return self.inside

    def untouched(self) -> bool:
        """Whether all around is still NaN."""
        rest = torch.ones_like(self.around, dtype=torch.bool)
        top = self.flat.storage_offset() // self.around.stride(0)
        rest[top:top + self.flat.shape[0], :self.flat.shape[1]] = False
        return bool(self.around[rest].isnan().all())
