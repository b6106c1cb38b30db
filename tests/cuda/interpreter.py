"""Triton's interpreter for bfloat16 and e4m3, and memory with guards around it.

The interpreter keeps bfloat16 as its bits, and its product takes them for whole numbers. Here they are widened first. It makes
other numbers of bfloat16's subnormal ones, and rounds float32 to e4m3 otherwise than GPUs do: ties go away from zero, and what is
small toward it. Here each stays itself, and becomes the nearest.
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

    patch.setattr(builder, "create_dot", lambda self, a, b, *rest: product(self, wide(a), wide(b), *rest))


def wide(handle: Any) -> Any:
    """bfloat16 as float32, all else as it is."""
    if handle.dtype.scalar != tl.bfloat16:
        return handle
    return interpreter.TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)


E4M3_NUMBERS = np.array([mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
                         for exponent in range(16) for mantissa in range(8)][:127], np.float32)
"""Those that are not negative, in the order of their bits: exponents are biased by 7, and 127 is NaN (OCP)."""


def convert_exactly(patch: pytest.MonkeyPatch) -> None:
    """Make the interpreter widen all of bfloat16, and round float32 to e4m3 as ``cvt.rn.satfinite`` does (PTX ISA)."""
    builder = interpreter.InterpreterBuilder
    convert, extend = builder.create_fp_to_fp, builder.create_fp_ext

    def rounded(self: Any, source: Any, kind: Any, *rest: Any) -> Any:
        if source.dtype.scalar != tl.float32 or kind.scalar != tl.float8e4nv:
            return convert(self, source, kind, *rest)
        return interpreter.TensorHandle(nearest_e4m3(source.data), kind.scalar)

    patch.setattr(builder, "create_fp_to_fp", rounded)
    patch.setattr(builder, "create_fp_ext", lambda self, source, kind: extend(self, wide(source), kind))


def nearest_e4m3(numbers: np.ndarray) -> np.ndarray:
    """The bits of what is nearest in e4m3, the even one of two; ±448 for what is larger."""
    between, sizes = (E4M3_NUMBERS[1:] + E4M3_NUMBERS[:-1]) / 2, np.abs(numbers)
    bits = np.searchsorted(between, sizes)  # of what lies just between, the lower one
    lower = np.minimum(bits, len(between) - 1)
    bits += (sizes == between[lower]) & (lower % 2 == 1)
    bits = np.where(np.isnan(numbers), 127, bits)
    return (bits | np.signbit(numbers) << 7).astype(np.uint8)


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
