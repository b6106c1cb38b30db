"""Operators of PyTorch's that round activations to e4m3: ``zellige::to_e4m3``, by a scale that it finds, and
``zellige::to_e4m3_with``, by one that is known.

On a GPU of compute capability 9.0 or later they run in Triton (``kernels/e4m3.py``): two launches that wait for nothing on the
host, or one where the scale is known. On a CPU they are made of PyTorch's own operators, with the same numbers bit for bit, so
that layers can be run, exported and tested without a GPU.

By a scale that is found, what is not finite is not hidden: NaN makes the scale NaN, and all numbers with it; of an infinity the
scale is infinite, finite numbers are 0 and infinite ones NaN, so that a product times that scale is NaN throughout. By a known
scale NaN stays NaN where it is, and infinities become ±448 like everything that is too large.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from zellige.cuda.kernels import e4m3 as kernels
from zellige.cuda.operators.product import capability_of
from zellige.cuda.tiling.device_tiles import DTYPES
from zellige.cuda.tiling.scaled_tiles import E4M3, LARGEST, scale_for
from zellige.errors import CompileError, InputError

OLDEST = 90
"""The compute capability of the first GPUs that round float32 to e4m3 at once. For 8.9 Triton makes float16 of it in between, cut
off toward zero, and what lay just beyond the middle of two numbers is then taken for the middle."""

PROGRAMS = 512
"""That share x. An H100 runs all at once: each of its 132 multiprocessors has registers for four of them, at 64 a thread."""

CHUNK = 8192
"""Numbers that a program fetches at once, 16 KB: of all programs together 8 MB. Latency × bandwidth of such memory are about 2."""

WARPS = 8


def to_e4m3(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (bfloat16 or float16, contiguous, of any shape) in e4m3, and the scale, float32, one number, that makes 448 of the largest
    magnitude; 1 if all are zero.

    ``InputError`` for another dtype, stride or device, ``CompileError`` where the GPU is too old.

    >>> small, scale = to_e4m3(torch.tensor([[0.0, 3.5, -1.75]], dtype=torch.bfloat16))
    >>> small.tolist(), scale.tolist()
    ([[0.0, 448.0, -224.0]], [0.0078125])
    """
    found: tuple[Tensor, Tensor] = torch.ops.zellige.to_e4m3(x)
    return found


def to_e4m3_with(x: Tensor, scale: Tensor) -> Tensor:
    """x (as ``to_e4m3`` takes it) in e4m3 by a scale that is known, float32, one number on the same device: each ÷ scale, ±448 at
    most. The scale is not looked at, for that would wait for the GPU: it must be from 2⁻¹²⁶ to 2¹²⁶.

    >>> to_e4m3_with(torch.tensor([[0.0, 3.5, -1.75]], dtype=torch.bfloat16), torch.tensor([0.005])).tolist()
    [[0.0, 448.0, -352.0]]
    """
    return torch.ops.zellige.to_e4m3_with(x, scale)


# ----------------------------------------------------------------------------------------------------------- operators


@torch.library.custom_op("zellige::to_e4m3", mutates_args=())
def _to_e4m3(x: Tensor) -> tuple[Tensor, Tensor]:
    _check(x)
    if x.device.type == "cpu":
        scale = scale_for(x.abs().amax() if x.numel() else x.new_zeros(())).reshape(1)
        return _by_operators(x, scale), scale
    y, scale = torch.empty_like(x, dtype=E4M3), x.new_empty(1, dtype=torch.float32)
    partials = x.new_empty(PROGRAMS, dtype=torch.int32)
    launch_largest(x, partials)
    launch_by_largest(x, y, scale, partials)
    return y, scale


@_to_e4m3.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, dtype=E4M3), x.new_empty(1, dtype=torch.float32)


@torch.library.custom_op("zellige::to_e4m3_with", mutates_args=())
def _to_e4m3_with(x: Tensor, scale: Tensor) -> Tensor:
    _check(x)
    _check_scale(scale, x.device)
    if x.device.type == "cpu":
        return _by_operators(x, scale.reshape(1))
    y = torch.empty_like(x, dtype=E4M3)
    launch_by_scale(x, y, scale)
    return y


@_to_e4m3_with.register_fake
def _(x: Tensor, scale: Tensor) -> Tensor:
    return torch.empty_like(x, dtype=E4M3)


def _by_operators(x: Tensor, scale: Tensor) -> Tensor:
    """As the kernels have it, by operators of PyTorch's: times the reciprocal, each rounded to float32."""
    return (x.float() * scale.reciprocal()).clamp(-LARGEST, LARGEST).to(E4M3)


def _check(x: Tensor) -> None:
    if x.dtype not in DTYPES:
        raise InputError(f"expected x in bfloat16 or float16, not {x.dtype}")
    if not x.is_contiguous():
        raise InputError(f"x must be contiguous, not {list(x.shape)} {list(x.stride())} apart; call contiguous() on it first")
    if x.device.type not in ("cpu", "cuda"):
        raise InputError(f"x must be on a GPU or a CPU, not on {x.device}")
    if x.device.type == "cuda" and capability_of(x.device) < OLDEST:
        raise CompileError(f"numbers are rounded to e4m3 on GPUs of compute capability {OLDEST / 10} or later; {x.device} has "
                           f"{capability_of(x.device) / 10}. Multiply in {x.dtype} there")


def _check_scale(scale: Tensor, device: torch.device) -> None:
    if scale.dtype != torch.float32 or scale.numel() != 1 or scale.device != device:
        raise InputError(f"the scale must be one number of {torch.float32} on {device}, "
                         f"not {list(scale.shape)} of {scale.dtype} on {scale.device}")


# ------------------------------------------------------------------------------------------------------------ launches


def launch_largest(x: Tensor, partials: Tensor, chunk: int = CHUNK) -> None:
    """Write the bits of the largest magnitudes of parts of x into ``partials``, int32, as many as there shall be programs (a power
    of two). Nothing is checked, here and below."""
    programs = partials.numel()
    with torch.cuda.device_of(x):
        kernels.largest_magnitude[(programs,)](x.view(torch.int16), partials, x.numel(), triton.cdiv(x.numel(), chunk),
                                               PROGRAMS=programs, CHUNK=chunk, num_warps=WARPS)


def launch_by_largest(x: Tensor, y: Tensor, scale: Tensor, partials: Tensor, chunk: int = CHUNK) -> None:
    """Write x in e4m3 into ``y``, and into ``scale`` the scale that follows from ``partials``."""
    programs, chunks = partials.numel(), triton.cdiv(x.numel(), chunk)
    with torch.cuda.device_of(x):
        kernels.rounded_by_largest[(max(1, min(programs, chunks)),)](x, y, scale, partials, x.numel(), chunks, PROGRAMS=programs,
                                                                     CHUNK=chunk, num_warps=WARPS)


def launch_by_scale(x: Tensor, y: Tensor, scale: Tensor, programs: int = PROGRAMS, chunk: int = CHUNK) -> None:
    """Write x in e4m3 into ``y``, by ``scale``."""
    chunks = triton.cdiv(x.numel(), chunk)
    if chunks:
        with torch.cuda.device_of(x):
            kernels.rounded_by_scale[(min(programs, chunks),)](x, y, scale, x.numel(), chunks, CHUNK=chunk, num_warps=WARPS)
