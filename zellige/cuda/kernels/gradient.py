"""The kernel of gradients: what a weight's kept numbers owe to the loss, dW = dYᵀ · X where W has tiles, and nowhere else.

A program makes the gradient of some steps of one tile, whose columns lie side by side in ``units``: TILE × WIDE sums over the
tokens of its part. Its operands are the rows of dYᵀ that the tile names and the rows of Xᵀ that the steps name, so all that the
loop moves is the token; the result lies like the values themselves.

The last step of a tile may repeat its last unit to be full (``tiling/tiles.py``). What is repeated stays zero: its gradient is.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

CHUNK = tl.constexpr(4)
"""Numbers of a chunk: tile, first step, steps, and the first step of its tile (``operators/gradient.py``)."""


@triton.jit(do_not_specialize=["turns", "part_size"])
def tile_gradient(dy, x, units, rows, chunks, gradient, tokens, columns, turns, part_size, dy_stride, x_stride,
                  TILE: tl.constexpr, STEP: tl.constexpr, UNIT: tl.constexpr, WIDE: tl.constexpr, TOKENS: tl.constexpr,
                  X_FEATURES: tl.constexpr, RAGGED: tl.constexpr):
    """One chunk, for the tokens of one part, into the place of that part in ``gradient``."""
    chunk, part = tl.program_id(0), tl.program_id(1)
    tile = tl.load(chunks + chunk * CHUNK)
    first = tl.load(chunks + chunk * CHUNK + 1)
    steps = tl.load(chunks + chunk * CHUNK + 2)
    beginning = tl.load(chunks + chunk * CHUNK + 3)
    inner = tl.arange(0, TILE)
    column = tl.arange(0, WIDE)
    line = tl.load(rows + tile * TILE + inner)
    place = first * (STEP // UNIT) + column // UNIT
    live = column < steps * STEP
    unit = tl.load(units + place, mask=live, other=0)
    before = tl.load(units + place - 1, mask=live & (place > beginning * (STEP // UNIT)), other=-1)
    if UNIT > 1:
        unit = tl.max_constancy(unit + 0 * column, UNIT)
        source = tl.max_contiguous(tl.multiple_of(unit + column % UNIT, UNIT), UNIT)
    else:
        source = unit
    read = live & (source < columns) if RAGGED else live
    sums = tl.zeros((TILE, WIDE), tl.float32)
    for turn in tl.range(part * turns, tl.minimum(tl.cdiv(tokens, TOKENS), (part + 1) * turns)):
        now = turn * TOKENS + tl.arange(0, TOKENS)
        there = now < tokens
        left = tl.load(dy + line.to(tl.int64)[:, None] * dy_stride + now[None, :],
                       mask=(line >= 0)[:, None] & there[None, :], other=0.0)
        if X_FEATURES:
            address = x + source.to(tl.int64)[None, :] * x_stride + now[:, None]
        else:
            address = x + now.to(tl.int64)[:, None] * x_stride + source[None, :]
        sums = tl.dot(left, tl.load(address, mask=there[:, None] & read[None, :], other=0.0), sums)
    sums = tl.where((unit == before)[None, :], 0.0, sums)
    home = gradient + part.to(tl.int64) * part_size + first.to(tl.int64) * (TILE * STEP)
    target = home + (column // STEP * (TILE * STEP) + column % STEP)[None, :] + inner[:, None] * STEP
    tl.store(target, sums.to(gradient.dtype.element_ty), mask=(inner[:, None] >= 0) & live[None, :])
