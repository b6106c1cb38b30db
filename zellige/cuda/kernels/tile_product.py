"""The kernel: Yᵀ = activation(W · Xᵀ + bias + residual) for a weight in tiles, in one launch.

A program makes one tile of rows for one block of tokens. Its operands are W's step, which lies together in memory, and the
rows of Xᵀ that the step names; what it has made goes to the rows of Yᵀ that the tile names. So gather and scatter cost
nothing but the addresses.

The columns of the next step are loaded one step before they are needed, into registers. That is what lets Triton's
pipeliner fetch X and W several steps ahead (``cp.async``, or tensor descriptors on Hopper and later), as it does in a dense
product: an index loaded in the step that uses it would halve the depth of the pipeline.

Activations are feature-major (columns × tokens, tokens side by side) or token-major, each side as its own constexpr says.
Token-major X wants units of 8 columns or more, 16 bytes to a load; feature-major X takes single columns at full speed.

Where a tile is shared by several programs (``SPLIT``), each leaves its sums in ``partials``; the one that comes last, by
``tickets``, adds them up in their order, so that the result does not depend on who came last.
"""

# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: SIM108 (only branches on a constexpr are decided at compile time)

from __future__ import annotations

import triton
import triton.language as tl

FIELDS = tl.constexpr(8)
"""Numbers of a piece: tile, first step, steps, part, parts, home, idle, idle end (``tiling/pieces.py``)."""


@triton.jit(do_not_specialize=["piece_count"])
def tile_product(x, values, units, rows, pieces, y, bias, residual, partials, tickets,
                 tokens, columns, piece_count, x_stride, y_stride, residual_stride,
                 TILE: tl.constexpr, STEP: tl.constexpr, UNIT: tl.constexpr, TOKENS: tl.constexpr,
                 X_FEATURES: tl.constexpr, Y_FEATURES: tl.constexpr, X_BOXES: tl.constexpr, W_BOXES: tl.constexpr,
                 RAGGED: tl.constexpr, SPLIT: tl.constexpr, WIDTH: tl.constexpr, EIGHTS: tl.constexpr,
                 ACTIVATION: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr):
    """One item: a piece of a tile for one block of tokens. The other arguments are ``operators/product.py``'s."""
    blocks = tl.cdiv(tokens, TOKENS)
    piece, block = item(tl.program_id(0), piece_count, blocks, WIDTH)
    token = block * TOKENS + tl.arange(0, TOKENS)
    first = tl.load(pieces + piece * FIELDS + 1)
    steps = tl.load(pieces + piece * FIELDS + 2)
    sums = products(x, values, units, first, steps, block, tokens, columns, x_stride,
                    TILE, STEP, UNIT, TOKENS, X_FEATURES, X_BOXES, W_BOXES, RAGGED)
    conclude(sums, piece, pieces, rows, block, blocks, token, tokens, y, bias, residual, partials, tickets,
             y_stride, residual_stride, TILE, TOKENS, Y_FEATURES, SPLIT, EIGHTS, ACTIVATION, BIAS, RESIDUAL)


@triton.jit
def item(program, piece_count, blocks, WIDTH: tl.constexpr):
    """Which piece and which block of tokens: ``WIDTH`` blocks at a time, so that their part of X stays in the L2 cache."""
    span = piece_count * WIDTH
    first = program // span * WIDTH
    width = tl.minimum(blocks - first, WIDTH)
    rest = program % span
    return rest // width, first + rest % width


@triton.jit
def products(x, values, units, first, steps, block, tokens, columns, x_stride,
             TILE: tl.constexpr, STEP: tl.constexpr, UNIT: tl.constexpr, TOKENS: tl.constexpr,
             X_FEATURES: tl.constexpr, X_BOXES: tl.constexpr, W_BOXES: tl.constexpr, RAGGED: tl.constexpr):
    """W's tile times the rows of Xᵀ that it keeps: TILE × TOKENS in float32."""
    token = block * TOKENS + tl.arange(0, TOKENS)
    there = token < tokens
    column = tl.arange(0, STEP)
    sums = tl.zeros((TILE, TOKENS), tl.float32)
    if not W_BOXES:
        home = values + first.to(tl.int64) * (TILE * STEP)
        inner = tl.arange(0, TILE)[:, None] * STEP + column[None, :]
    if UNIT == STEP:
        begin = tl.load(units + first)
    else:
        begin = tl.load(units + first * (STEP // UNIT) + column // UNIT)
    for step in tl.range(first, first + steps):
        if UNIT == STEP:
            ahead = tl.load(units + step + 1)
        else:
            ahead = tl.load(units + (step + 1) * (STEP // UNIT) + column // UNIT)
        if X_BOXES:
            if X_FEATURES:
                right = x.load([begin, block * TOKENS])
            else:
                right = x.load([block * TOKENS, begin]).T
        else:
            source = begin + column % UNIT
            if UNIT > 1:
                source = tl.max_contiguous(tl.multiple_of(source, UNIT), UNIT)
            mask = there[None, :]
            if RAGGED:
                mask = mask & (source < columns)[:, None]
            if X_FEATURES:
                right = tl.load(x + source.to(tl.int64)[:, None] * x_stride + token[None, :], mask=mask, other=0.0)
            else:
                right = tl.load(x + token.to(tl.int64)[None, :] * x_stride + source[:, None], mask=mask, other=0.0)
        if W_BOXES:
            left = values.load([step * TILE, 0])
        else:
            left = tl.load(home + inner)
            home += TILE * STEP
        sums = tl.dot(left, right, sums)
        begin = ahead
    return sums


@triton.jit
def conclude(sums, piece, pieces, rows, block, blocks, token, tokens, y, bias, residual, partials, tickets,
             y_stride, residual_stride, TILE: tl.constexpr, TOKENS: tl.constexpr, Y_FEATURES: tl.constexpr,
             SPLIT: tl.constexpr, EIGHTS: tl.constexpr, ACTIVATION: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr):
    """What becomes of a piece's sums: they meet those of the tile's other parts, and are written; then rows without weights."""
    finish = piece >= 0
    if SPLIT:
        part = tl.load(pieces + piece * FIELDS + 3)
        parts = tl.load(pieces + piece * FIELDS + 4)
        if parts > 1:
            home = tl.load(pieces + piece * FIELDS + 5) * blocks + block
            inner = tl.arange(0, TILE)[:, None] * TOKENS + tl.arange(0, TOKENS)[None, :]
            tl.store(partials + (home + part * blocks).to(tl.int64) * (TILE * TOKENS) + inner, sums)
            tl.debug_barrier()
            finish = tl.atomic_add(tickets + home, 1, sem="acq_rel") == parts - 1
            if finish:
                sums = tl.zeros((TILE, TOKENS), tl.float32)
                for other in range(parts):
                    there = partials + (home + other * blocks).to(tl.int64) * (TILE * TOKENS) + inner
                    sums += tl.load(there, cache_modifier=".cg")
    if finish:
        tile = tl.load(pieces + piece * FIELDS)
        line = tl.load(rows + tile * TILE + tl.arange(0, TILE))
        write(sums, line, token, tokens, y, bias, residual, y_stride, residual_stride,
              Y_FEATURES, EIGHTS, ACTIVATION, BIAS, RESIDUAL)
    LINES: tl.constexpr = TILE // 4  # a few at a time: the addresses of all would not fit the registers
    for lines in tl.range(4 * tl.load(pieces + piece * FIELDS + 6), 4 * tl.load(pieces + piece * FIELDS + 7), num_stages=1):
        line = tl.load(rows + lines * LINES + tl.arange(0, LINES))
        write(tl.zeros((LINES, TOKENS), tl.float32), line, token, tokens, y, bias, residual, y_stride, residual_stride,
              Y_FEATURES, EIGHTS, ACTIVATION, BIAS, RESIDUAL)


@triton.jit
def write(sums, line, token, tokens, y, bias, residual, y_stride, residual_stride,
          Y_FEATURES: tl.constexpr, EIGHTS: tl.constexpr, ACTIVATION: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr):
    """Bias, residual, activation, and the way to the rows of Yᵀ; where ``EIGHTS`` of rows lie side by side, 16 bytes at a time."""
    if EIGHTS and line.shape[0] % 8 == 0:
        line = tl.max_constancy(line >> 3, 8) * 8 + tl.arange(0, line.shape[0]) % 8
    inside = (line >= 0)[:, None] & (token < tokens)[None, :]
    if BIAS:
        sums += tl.load(bias + line, mask=line >= 0, other=0.0).to(tl.float32)[:, None]
    if RESIDUAL:
        if Y_FEATURES:
            addend = residual + line.to(tl.int64)[:, None] * residual_stride + token[None, :]
        else:
            addend = residual + token.to(tl.int64)[None, :] * residual_stride + line[:, None]
        sums += tl.load(addend, mask=inside, other=0.0).to(tl.float32)
    sums = activate(sums, ACTIVATION)
    if Y_FEATURES:
        target = y + line.to(tl.int64)[:, None] * y_stride + token[None, :]
    else:
        target = y + token.to(tl.int64)[None, :] * y_stride + line[:, None]
    tl.store(target, sums.to(y.dtype.element_ty), mask=inside)


@triton.jit
def activate(x, ACTIVATION: tl.constexpr):
    """``x`` itself, or its ReLU, GELU or SiLU; NaN stays."""
    if ACTIVATION == "relu":
        x = tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)
    elif ACTIVATION == "gelu":
        x = gelu(x)
    elif ACTIVATION == "silu":
        x = x / (1.0 + tl.exp2(-1.4426950408889634 * x))
    return x


@triton.jit
def gelu(x):
    """x Φ(x) as max(x, 0) − |x| Φ(−|x|), where log₂ Φ is a polynomial up to |x| = 8 (beyond, 10⁻¹⁴ is left of it): within 4·10⁻⁵ of
    itself. ``tl.erf`` takes more registers than a tile of 128 × 256 leaves."""
    far = tl.minimum(tl.abs(x), 8.0)
    power = -1.2624586e-06 * far + 4.8203292e-05
    power = power * far - 0.00080724823
    power = power * far + 0.007944578
    power = power * far - 0.05263538
    power = power * far - 0.45995685
    power = power * far - 1.15061
    power = power * far - 1.000043
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL) - far * tl.exp2(power)
