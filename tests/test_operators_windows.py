"""Convolutions, products, pools, paddings and resizes of any shape, end to end."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from operator_cases import Case, assert_equal, batches, few, side_by_side, sizes, steps
from torch import nn

import zellige as zl


@st.composite
def convolutions(draw: st.DrawFn) -> Case:
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    inputs = groups * draw(st.sampled_from([1, 2, 3, 4, 8]))
    if draw(st.integers(0, 3)) == 0:
        groups = inputs                                                     # depthwise, with a multiplier or without
    outputs = groups * draw(st.sampled_from([1, 2, 3, 8, 9]))
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (1, 7), (5, 1), (2, 2), (3, 5), (7, 7), (4, 1)]))
    dilation = (draw(st.sampled_from([1, 1, 2, 3])), draw(st.sampled_from([1, 1, 2])))
    extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    padding = draw(st.sampled_from(["same", "valid", (0, 0), (1, 1), (2, 3), "half", "whole"]))
    if padding == "half":
        padding = (extent[0] // 2, extent[1] // 2)
    elif padding == "whole":                                                # windows that lie in the padding alone
        padding = (extent[0], extent[1])
    mode = draw(st.sampled_from(["zeros", "zeros", "zeros", "reflect", "replicate", "circular"]))
    beyond = [size // 2 + size % 2 for size in extent] if padding == "same" else [0, 0] if padding == "valid" else padding
    size = []
    for reach, pad in zip(extent, beyond, strict=True):
        inside = 1 if padding == "same" else max(1, reach - 2 * pad)        # a kernel may be larger than the map
        least = max(inside, pad + 1) if mode in ("reflect", "circular") else inside
        size.append(draw(st.integers(least, least + 9)))
    stride = (1, 1) if padding == "same" else (draw(steps), draw(steps))
    torch.manual_seed(draw(st.integers(0, 99)))
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, draw(st.booleans()), mode)
    return Case(conv, ((draw(batches), inputs, *size),))


@few
@given(cases=side_by_side(convolutions()))
def test_convolutions(cases):
    assert_equal(*cases)


@st.composite
def lines(draw: st.DrawFn) -> Case:
    groups = draw(st.sampled_from([1, 2, 4]))
    conv = nn.Conv1d(4, 8, draw(st.integers(1, 5)), draw(steps), draw(st.integers(0, 3)), draw(st.integers(1, 2)), groups)
    return Case(conv, ((draw(batches), 4, draw(st.integers(9, 20))),))


@st.composite
def linears(draw: st.DrawFn) -> Case:
    inputs, outputs = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    lead = draw(st.sampled_from([(), (1,), (2,), (5,), (2, 3), (1, 17), (2, 3, 4), (1, 1, 1), (2, 2, 3, 2)]))
    return Case(nn.Linear(inputs, outputs, draw(st.booleans())), ((*lead, inputs),))


@st.composite
def mixes(draw: st.DrawFn) -> Case:
    """A constant matrix, or batch of one, times computed columns."""
    tokens, rows, columns = (draw(st.integers(1, 20)) for _ in range(3))
    numbers = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    matrix = torch.randn((*(1,) * draw(st.integers(0, 3)), rows, tokens), generator=numbers)
    return Case(lambda x: matrix.to(x.dtype) @ x, ((*draw(st.sampled_from([(), (1,), (3,), (2, 3)])), tokens, columns),))


@few
@given(cases=side_by_side(lines() | linears() | linears() | mixes()))
def test_lines_and_products(cases):
    assert_equal(*cases)


def test_products_with_a_computed_vector():
    assert_equal(
        Case(lambda x, y: x @ y, ((2, 3, 5, 7), (2, 3, 7, 1))), Case(lambda x, y: x @ y, ((2, 1, 7), (2, 7, 6))),
        Case(torch.bmm, ((3, 1, 8), (3, 8, 5))), Case(lambda x, y: x @ y, ((4, 6), (6,))), Case(lambda x, y: x @ y, ((6,), (6, 4))),
        Case(torch.dot, ((9,), (9,))), Case(lambda x, y: torch.einsum("nchw,nc->nhw", x, y), ((2, 3, 4, 5), (2, 3))))


@st.composite
def pools(draw: st.DrawFn) -> Case:
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    stride, ceil = (draw(steps), draw(steps)), draw(st.booleans())
    padding = tuple(draw(st.integers(0, size // 2)) for size in kernel)
    if draw(st.booleans()):
        pool = nn.MaxPool2d(kernel, stride, padding, draw(st.integers(1, 2)), ceil_mode=ceil)
    else:
        pool = nn.AvgPool2d(kernel, stride, padding, ceil, draw(st.booleans()), draw(st.sampled_from([None, None, 5])))
    return Case(pool, ((draw(batches), draw(st.integers(1, 3)), draw(st.integers(7, 20)), draw(st.integers(7, 20))),))


@st.composite
def adaptive_pools(draw: st.DrawFn) -> Case:
    size = (draw(sizes), draw(sizes))
    pool = draw(st.sampled_from([nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d]))(size)
    return Case(pool, ((draw(batches), draw(st.integers(1, 3)), draw(sizes), draw(sizes)),))


@few
@given(cases=side_by_side(pools() | adaptive_pools()))
def test_pools(cases):
    assert_equal(*cases)


def test_pools_over_lines():
    shape = ((2, 5, 13),)
    assert_equal(
        Case(nn.MaxPool1d(3, 2, 1), shape), Case(nn.MaxPool1d(2, ceil_mode=True), shape), Case(nn.AvgPool1d(4, 3, 2), shape),
        Case(nn.AvgPool1d(3, count_include_pad=False, padding=1), shape), Case(nn.AdaptiveAvgPool1d(4), shape),
        Case(nn.AdaptiveMaxPool1d(3), shape), Case(nn.AdaptiveAvgPool1d(1), shape), Case(nn.LPPool1d(2, 3, 2), shape),
        Case(nn.LPPool2d(2, 3), ((2, 3, 9, 11),)))


@st.composite
def pads(draw: st.DrawFn) -> Case:
    height, width = draw(st.integers(4, 9)), draw(st.integers(4, 9))
    mode = draw(st.sampled_from(["constant", "constant", "reflect", "replicate", "circular"]))
    grow = [draw(st.integers(-1, 3)) for _ in range(4)]
    value = draw(st.sampled_from([0.0, 1.5])) if mode == "constant" else None
    return Case(lambda x: F.pad(x, grow, mode, value), ((draw(batches), 3, height, width),))


@st.composite
def resizes(draw: st.DrawFn) -> Case:
    size = (draw(st.integers(1, 23)), draw(st.integers(1, 23)))
    factor = draw(st.sampled_from([0.5, 0.75, 1.5, 2.0, 2.3, 3.0]))
    options = draw(st.sampled_from([
        {"size": size}, {"scale_factor": factor}, {"size": size, "mode": "bilinear"}, {"size": size, "mode": "nearest-exact"},
        {"scale_factor": (factor, 1.5), "mode": "bilinear"}, {"size": size, "mode": "bilinear", "align_corners": True},
        {"scale_factor": factor, "mode": "bilinear", "align_corners": True}, {"size": size, "mode": "area"}]))
    return Case(lambda x: F.interpolate(x, **options), ((draw(batches), 3, draw(st.integers(2, 12)), draw(st.integers(2, 12))),))


@few
@given(cases=side_by_side(pads() | resizes()))
def test_pads_and_resizes(cases):
    assert_equal(*cases)


def test_what_is_not_supported_is_named_once_for_all():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 4, 2), nn.Upsample(scale_factor=2, mode="bicubic")).eval()
    with pytest.raises(zl.ZelligeError, match=r"(?s)conv_transpose2d.input, in 1.*upsample_bicubic2d.vec, in 2.*Replace them"):
        zl.compile(model, (torch.randn(1, 3, 9, 9),))
