"""Whether every number of a product is as near the exact one as rounding allows."""

from __future__ import annotations

import math

import torch

FUNCTIONS = {"none": lambda y: y, "relu": torch.relu, "gelu": torch.nn.functional.gelu, "silu": torch.nn.functional.silu}

STEEPEST = 1.13
"""Slope of GELU at its steepest; ReLU's and SiLU's are less."""

APPROXIMATE = 2.0**-12 + 3e-5
"""By how much of its argument the GELU of the CUDA C++ kernels may be off, in bfloat16 (``activation.cuh``)."""


def relative_error(y: torch.Tensor, reference: torch.Tensor) -> float:
    """‖y − reference‖ ÷ ‖reference‖: it tells how well a product is computed, and passes over a few numbers that are wrong."""
    return ((y.double() - reference.double()).norm() / reference.double().norm().clamp_min(1e-30)).item()


def checked_error(y: torch.Tensor, before: torch.Tensor, terms: torch.Tensor, count: int, activation: str = "none") -> float:
    """The relative error of y, or infinity where a single number of it is further off than rounding explains.

    ``before``: what goes into the activation, ``terms``: the same sums of magnitudes, |x| · |W|ᵀ + |bias| + |residual|; both exact,
    in float64; ``count``: columns that are summed. Allowed are 2⁻⁸ of the result (twice what rounding to bfloat16 may do, float16
    loses less), and of the terms 2⁻²² for every 16 columns that a tensor core adds to its sum at once, twice cut off at 24 bits.
    """
    exact = FUNCTIONS[activation](before)
    summed = STEEPEST * math.ceil(count / 16 + 4) * 2.0**-22 * terms
    allowed = 2.0**-8 * exact.abs() + summed + (activation == "gelu") * APPROXIMATE * before.abs()
    return relative_error(y, exact) if bool(((y.double() - exact).abs() <= allowed).all()) else math.inf
