"""Activations rounded to e4m3, in Triton: the largest magnitude of all of them, and each of them over a scale.

Numbers lie one behind the other, in chunks that a fixed number of programs share out among themselves, one after the other, so
that all programs are somewhere near the same place of memory at any time. Whoever wrote x most likely did so front to back, and of
what is larger than the L2 cache the end is left there. So the first walk goes back to front, and the second, to which that leaves
the front, front to back; in the direction of the walk before, each part would have been replaced just before it is reached.
Rounding reads x for the last time, so its lines may go first, and leave the cache to what is written.

Scales are those of ``tiling/scaled_tiles.py``. Numbers are multiplied by the scale's reciprocal, both rounded to float32 as IEEE
754 has it, which may differ by a unit in the last place from the quotient; then rounded to the nearest of e4m3, ties to even, by
one instruction for two, ``cvt.rn.satfinite.e4m3x2.f32``: it makes ±448 of what is larger, an infinity too, and keeps NaN (PTX
ISA, cvt). Compute capability 9.0 or later: before, Triton does not go this way.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

LARGEST = tl.constexpr(448.0)
TINY = tl.constexpr(2.0**-126)
"""The least scale, float32's smallest normal number: its reciprocal is finite."""


@triton.jit(do_not_specialize=["chunks"])
def largest_magnitude(x, partials, count, chunks, PROGRAMS: tl.constexpr, CHUNK: tl.constexpr):
    """The largest of a program's share of x, given as its bits in int16, into its place in ``partials``.

    Magnitudes of bfloat16, and of float16, have the order of their bits as whole numbers, infinity above all, and NaN above it.
    """
    program = tl.program_id(0).to(tl.int64)
    largest = tl.zeros((CHUNK,), tl.int32)
    for chunk in tl.range(program, chunks, PROGRAMS):
        place = (chunks - 1 - chunk) * CHUNK + tl.arange(0, CHUNK)
        bits = tl.load(x + place, mask=place < count, other=0)
        largest = tl.maximum(largest, (bits & 0x7FFF).to(tl.int32))
    tl.store(partials + program, tl.max(largest, 0))


@triton.jit(do_not_specialize=["chunks"])
def rounded_by_largest(x, y, scale, partials, count, chunks, PROGRAMS: tl.constexpr, CHUNK: tl.constexpr):
    """x by the scale that follows from what the ``PROGRAMS`` before have found, which each program finds and the first writes."""
    bits = tl.max(tl.load(partials + tl.arange(0, PROGRAMS)), 0)
    largest = bits.to(tl.int16).to(x.dtype.element_ty, bitcast=True).to(tl.float32)
    found = tl.maximum(tl.div_rn(largest, LARGEST), TINY, propagate_nan=tl.PropagateNan.ALL)
    found = tl.where(bits == 0, 1.0, found)
    tl.store(scale, found, mask=tl.program_id(0) == 0)
    _round(x, y, found, count, chunks, CHUNK, False)


@triton.jit(do_not_specialize=["chunks"])
def rounded_by_scale(x, y, scale, count, chunks, CHUNK: tl.constexpr):
    """x by a scale that is known."""
    _round(x, y, tl.load(scale), count, chunks, CHUNK, True)


@triton.jit
def _round(x, y, scale, count, chunks, CHUNK: tl.constexpr, BACKWARD: tl.constexpr):
    """A program's share of x, times 1 / scale, into y."""
    factor = tl.div_rn(1.0, scale)
    for chunk in tl.range(tl.program_id(0).to(tl.int64), chunks, tl.num_programs(0)):
        place = (chunks - 1 - chunk if BACKWARD else chunk) * CHUNK + tl.arange(0, CHUNK)
        inside = place < count
        values = tl.load(x + place, mask=inside, eviction_policy="evict_first").to(tl.float32)
        tl.store(y + place, (values * factor).to(y.dtype.element_ty), mask=inside)
