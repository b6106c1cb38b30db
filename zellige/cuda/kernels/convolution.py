"""The kernel of convolutions: an implicit matrix product, with gather, scatter and order of work as in ``tile_product.py``.

A token is an output pixel, a column is one tap of one input channel. So X, tokens × columns, is never made: its element is the
pixel of the input that the tap meets, and zero where that lies outside. Which tap and which channel a unit of columns means
was looked up beforehand (``channels`` and ``taps``, one number each); the pixel where a token's window begins is worked out once;
so a step adds, multiplies the sum of the two by the distance of pixels, and compares.

Activations are channels-last (pixels × channels) or channel-planes (channels × pixels), each side as its own constexpr says.
Channels-last X wants units of 8 channels or more, 16 bytes to a load. Neighbouring pixels of a plane, shifted by a tap, begin at
any even address, so that single columns of planes are fetched 2 bytes at a time: right, but not fast.
"""

# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: SIM108 (only branches on a constexpr are decided at compile time)

from __future__ import annotations

import triton
import triton.language as tl

from zellige.cuda.kernels.tile_product import FIELDS, conclude, item

NOWHERE = tl.constexpr(-(1 << 30))
"""Where the window of a token begins that there is not: no tap of it meets the input."""


@triton.jit(do_not_specialize=["pixels", "x_channels", "height", "width", "out_height", "out_width", "piece_count"])
def tile_convolution(x, values, channels, taps, rows, pieces, y, bias, residual, partials, tickets,
                     pixels, x_channels, height, width, out_height, out_width, piece_count, x_stride, y_stride, residual_stride,
                     TILE: tl.constexpr, STEP: tl.constexpr, UNIT: tl.constexpr, TOKENS: tl.constexpr,
                     STRIDE_Y: tl.constexpr, STRIDE_X: tl.constexpr, PAD_Y: tl.constexpr, PAD_X: tl.constexpr,
                     X_FEATURES: tl.constexpr, Y_FEATURES: tl.constexpr, ALIGNED: tl.constexpr, W_BOXES: tl.constexpr,
                     RAGGED: tl.constexpr, SPLIT: tl.constexpr, WIDTH: tl.constexpr, EIGHTS: tl.constexpr,
                     ACTIVATION: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr):
    """One item: a piece of a tile for one block of output pixels. The other arguments are ``operators/convolution.py``'s."""
    blocks = tl.cdiv(pixels, TOKENS)
    piece, block = item(tl.program_id(0), piece_count, blocks, WIDTH)
    token = block * TOKENS + tl.arange(0, TOKENS)
    image = token // (out_height * out_width)
    line = token // out_width
    top = (line - image * out_height) * STRIDE_Y - PAD_Y
    left = (token - line * out_width) * STRIDE_X - PAD_X
    pixel = (image * height + top) * width + left
    top = tl.where(token < pixels, top, NOWHERE)
    first = tl.load(pieces + piece * FIELDS + 1)
    steps = tl.load(pieces + piece * FIELDS + 2)
    sums = products(x, values, channels, taps, first, steps, pixel, top, left, x_channels, height, width, x_stride * ALIGNED,
                    TILE, STEP, UNIT, TOKENS, X_FEATURES, W_BOXES, RAGGED)
    conclude(sums, piece, pieces, rows, block, blocks, token, pixels, y, bias, residual, partials, tickets,
             y_stride, residual_stride, TILE, TOKENS, Y_FEATURES, SPLIT, EIGHTS, ACTIVATION, BIAS, RESIDUAL)


@triton.jit
def products(x, values, channels, taps, first, steps, pixel, top, left, x_channels, height, width, x_stride,
             TILE: tl.constexpr, STEP: tl.constexpr, UNIT: tl.constexpr, TOKENS: tl.constexpr,
             X_FEATURES: tl.constexpr, W_BOXES: tl.constexpr, RAGGED: tl.constexpr):
    """W's tile times what its taps meet of the pixels' windows: TILE × TOKENS in float32."""
    UNITS: tl.constexpr = STEP // UNIT
    column = tl.arange(0, STEP)
    sums = tl.zeros((TILE, TOKENS), tl.float32)
    if not W_BOXES:
        home = values + first.to(tl.int64) * (TILE * STEP)
        inner = tl.arange(0, TILE)[:, None] * STEP + column[None, :]
    channel, tap = unit_of(channels, taps, first, column, UNITS, UNIT)
    for step in tl.range(first, first + steps):
        channel_ahead, tap_ahead = unit_of(channels, taps, step + 1, column, UNITS, UNIT)
        down, right = tap >> 16, tap & 0xFFFF
        source = channel + column % UNIT
        if UNIT > 1:
            source = tl.max_contiguous(tl.multiple_of(source, UNIT), UNIT)
        if UNITS > 1:
            if UNIT > 1:
                down, right = tl.max_constancy(down, UNIT), tl.max_constancy(right, UNIT)
            down, right = down[:, None], right[:, None]
        inside = ((top[None, :] + down).to(tl.uint32) < height.to(tl.uint32)) & \
                 ((left[None, :] + right).to(tl.uint32) < width.to(tl.uint32))
        if RAGGED:
            inside = inside & (source < x_channels)[:, None]
        met = pixel[None, :] + (down * width + right)
        if X_FEATURES:
            operand = tl.load(x + (source[:, None] * x_stride + met), mask=inside, other=0.0)
        else:
            operand = tl.load(x + (met * x_stride + source[:, None]), mask=inside, other=0.0)
        if W_BOXES:
            weights = values.load([step * TILE, 0])
        else:
            weights = tl.load(home + inner)
            home += TILE * STEP
        sums = tl.dot(weights, operand, sums)
        channel, tap = channel_ahead, tap_ahead
    return sums


@triton.jit
def unit_of(channels, taps, step, column, UNITS: tl.constexpr, UNIT: tl.constexpr):
    """The first channel and the tap of the units of a step: two numbers where one unit is all of it, else two for every column."""
    if UNITS == 1:
        place = step
    else:
        place = step * UNITS + column // UNIT
    return tl.load(channels + place), tl.load(taps + place)
