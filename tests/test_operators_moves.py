"""Joins, cuts, turns and shuffles, end to end."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from operator_cases import Case, assert_equal, few, side_by_side
from torch import nn


@st.composite
def joins(draw: st.DrawFn) -> Case:
    shape, dimension = [draw(st.integers(1, 9)) for _ in range(draw(st.integers(1, 5)))], draw(st.integers(-1, 0))
    dimension = draw(st.integers(0, len(shape) - 1)) if dimension else -1
    parts = []
    for _ in range(draw(st.integers(1, 4))):
        part = list(shape)
        part[dimension] = draw(st.integers(1, 9))
        parts.append(tuple(part))
    return Case(lambda *xs: torch.cat([*xs, xs[0]], dimension), tuple(parts))


@st.composite
def cuts(draw: st.DrawFn) -> Case:
    shape = tuple(draw(st.integers(2, 11)) for _ in range(draw(st.integers(2, 4))))
    dimension = draw(st.integers(0, len(shape) - 1))
    kind = draw(st.sampled_from(["slice", "chunk", "split", "sizes", "unbind"]))
    if kind == "slice":
        bounds = []
        for size in shape:
            start = draw(st.integers(0, size - 1))
            bounds.append(slice(start, draw(st.integers(start + 1, size)), draw(st.integers(1, 3))))
        return Case(lambda x: x[tuple(bounds)], (shape,))
    works = {
        "chunk": lambda x: x.chunk(3, dimension), "split": lambda x: x.split(2, dimension),
        "sizes": lambda x: x.split([1, shape[dimension] - 1], dimension), "unbind": lambda x: x.unbind(dimension)}
    return Case(works[kind], (shape,))


@st.composite
def turns(draw: st.DrawFn) -> Case:
    shape = tuple(draw(st.integers(1, 9)) for _ in range(draw(st.integers(2, 5))))
    order = draw(st.permutations(range(len(shape))))
    kind = draw(st.sampled_from(["permute", "flatten", "regroup", "stack", "flip", "roll", "repeat"]))
    works = {
        "permute": lambda x: x.permute(order), "flatten": lambda x: x.permute(order).flatten(len(shape) // 2 - 1),
        "regroup": lambda x: x.permute(order).reshape(shape), "stack": lambda x: torch.stack([x, -x], order[0]),
        "flip": lambda x: x.flip(order[0]), "roll": lambda x: x.roll(order[0], order[-1]),
        "repeat": lambda x: x.repeat([1 + index % 2 for index in order])}
    return Case(works[kind], (shape,))


@few
@given(cases=side_by_side(joins() | cuts() | turns()))
def test_moves(cases):
    assert_equal(*cases)


def test_shuffles():
    maps = ((2, 12, 4, 6),)
    assert_equal(
        Case(nn.ChannelShuffle(3), maps), Case(lambda x: x.view(2, 4, 3, 4, 6).transpose(1, 2).reshape(2, 12, 4, 6), maps),
        Case(nn.PixelShuffle(2), maps), Case(nn.PixelUnshuffle(2), maps), Case(lambda x: x.repeat_interleave(2, 1), maps),
        Case(lambda x: x.tile(1, 2, 1, 1), maps), Case(lambda x: x.rot90(1, (2, 3)), maps),
        Case(lambda x: x[:, :, None, :, 0], maps),
        Case(lambda x: x.unflatten(1, (3, 4)).flatten(2), maps), Case(lambda x: x[:, [3, 1, 1, 0]], maps))
