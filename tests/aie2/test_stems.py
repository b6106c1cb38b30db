"""Stems: convolutions over folded columns are the same, and inputs lie where their program says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from quantized_layers import quantized
from small_networks import Build
from test_lower import POWERS, assert_runs_right

from zellige.aie2.device import DEVICES
from zellige.aie2.lowering.lower import lower
from zellige.aie2.lowering.stems import fold_stems
from zellige.aie2.overlay import overlay
from zellige.aie2.tensor import HostValue, host_value


@settings(max_examples=10)
@given(st.sampled_from([(3, 2), (1, 3), (2, 4), (4, 2)]), st.integers(1, 7), st.integers(0, 3), st.integers(7, 13))
def test_folded_stems_run_right(channels_and_stride, kernel, padding, width):
    channels, stride = channels_and_stride
    b = Build(1, channels, 7, width)
    graph = quantized(b.done(b("conv2d", b.x, b.random(16, channels, 3, kernel), stride=(2, stride),
                               padding=(1, 1, min(padding, kernel - 1), 1))), POWERS)
    folded, folds = fold_stems(graph)
    (node,) = folded
    assert folds == {b.x: stride} and node.weight is not None and node.weight.shape[3] <= -(-(kernel + stride - 1) // stride)
    on = overlay(DEVICES["paper"], 2, 2)
    assert f" folded {stride}" in lower(graph, on).inputs[b.x]
    assert_runs_right(graph, on)


def test_what_others_read_too_is_not_folded():
    b = Build(1, 3, 8, 8)
    stem = b("conv2d", b.x, b.random(3, 3, 3, 3), stride=(2, 2), padding=(1, 1, 1, 1))
    pooled = b("max_pool2d", b.x, kernel=(2, 2), stride=(2, 2))
    graph = quantized(b.done(b("add", stem, pooled)), POWERS)
    assert fold_stems(graph)[1] == {}


@given(st.integers(1, 2), st.integers(1, 4), st.integers(1, 9))
def test_folded_values_read_back(channels, fold, width):
    value = HostValue("x", 3, 1, 10, 1, 1, tuple(range(channels)), 2, width, (1, channels, 2, width), fold)
    assert host_value(str(value)) == value
    array = np.random.default_rng(0).integers(-128, 128, value.shape).astype(np.int8)
    buffer = np.zeros(3 * 10 * 8, np.uint8)
    value.write(buffer, array)
    np.testing.assert_array_equal(value.read(buffer), array)
    apart = replace(value, width=-(-width // fold), lanes=tuple(range(channels * fold)), fold=1,
                    shape=(1, channels * fold, 2, -(-width // fold)))
    for column in range(width):
        held = apart.read(buffer)[0, channels * (column % fold) : channels * (column % fold + 1), :, column // fold]
        np.testing.assert_array_equal(held, array[0, :, :, column])
