"""What stands between products, on activations that are feature-major (features × tokens, tokens side by side), in Triton.

Layer norm and transposition take and give either order, as their constexprs say; attention reads and writes features × tokens.
Sums are float32 throughout.
"""

# mypy: disable-error-code="no-untyped-def"


from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def transposition(x, y, rows, columns, x_stride, y_stride, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """One block of rows × columns, written as columns × rows."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    block = tl.load(x + row.to(tl.int64)[:, None] * x_stride + column[None, :], mask=inside)
    tl.store(y + column.to(tl.int64)[:, None] * y_stride + row[None, :], tl.trans(block), mask=tl.trans(inside))


@triton.jit
def layer_norm(x, y, weight, bias, tokens, features, x_stride, y_stride, epsilon,
               TOKENS: tl.constexpr, FEATURES: tl.constexpr, X_FEATURES: tl.constexpr, Y_FEATURES: tl.constexpr,
               WEIGHT: tl.constexpr, BIAS: tl.constexpr):
    """(x − mean) / √(variance + epsilon) · weight + bias over all features of so many tokens, which stay in registers."""
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    feature = tl.arange(0, FEATURES)
    there = feature < features
    inside = there[:, None] & (token < tokens)[None, :]
    if X_FEATURES:
        source = x + feature.to(tl.int64)[:, None] * x_stride + token[None, :]
    else:
        source = x + token.to(tl.int64)[None, :] * x_stride + feature[:, None]
    values = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(values, 0) / features
    centred = tl.where(inside, values - mean[None, :], 0.0)
    spread = tl.sum(centred * centred, 0) / features
    result = centred * tl.rsqrt(spread + epsilon)[None, :]
    if WEIGHT:
        result *= tl.load(weight + feature, mask=there, other=0.0).to(tl.float32)[:, None]
    if BIAS:
        result += tl.load(bias + feature, mask=there, other=0.0).to(tl.float32)[:, None]
    if Y_FEATURES:
        target = y + feature.to(tl.int64)[:, None] * y_stride + token[None, :]
    else:
        target = y + token.to(tl.int64)[None, :] * y_stride + feature[:, None]
    tl.store(target, result.to(y.dtype.element_ty), mask=inside)


@triton.jit
def attention(x, y, sequence, features, x_stride, y_stride, scale,
              WIDTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr):
    """One head of one sequence for a block of queries: softmax(scale · Kᵀ Q) over keys, times V.

    Rows of x are all queries' features, then all keys', then all values', head after head. Keys are walked in blocks, and
    sums scaled anew where a larger product appears (Milakov and Gimelshein 2018; Dao et al. 2022).
    """
    begin = tl.program_id(2).to(tl.int64) * sequence
    line = (tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)).to(tl.int64)[:, None]
    query = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    asked = (query < sequence)[None, :]
    queries = tl.load(x + line * x_stride + begin + query[None, :], mask=asked, other=0.0)
    largest = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    sums = tl.zeros((WIDTH, QUERIES), tl.float32)
    for start in tl.range(0, sequence, KEYS):
        key = start + tl.arange(0, KEYS)
        there = (key < sequence)[None, :]
        keys = tl.load(x + (line + features) * x_stride + begin + key[None, :], mask=there, other=0.0)
        scores = tl.dot(tl.trans(keys), queries) * (scale * 1.4426950408889634)  # powers of two are what GPUs compute
        scores = tl.where((key < sequence)[:, None], scores, float("-inf"))
        now = tl.maximum(largest, tl.max(scores, 0))
        shares = tl.exp2(scores - now[None, :])
        fade = tl.exp2(largest - now)
        total = total * fade + tl.sum(shares, 0)
        values = tl.load(x + (line + 2 * features) * x_stride + begin + key[None, :], mask=there, other=0.0)
        sums = tl.dot(values, shares.to(values.dtype), sums * fade[None, :])
        largest = now
    tl.store(y + line * y_stride + begin + query[None, :], (sums / total[None, :]).to(y.dtype.element_ty), mask=asked)
