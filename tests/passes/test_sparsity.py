"""Sparsity lists against loops that look at one weight at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zellige.errors import GraphError
from zellige.graph.ir import Graph, Node, TensorType
from zellige.passes.sparsity import band_columns, band_rows, find_sparsity, kept_columns, layer_sparsity
from zellige.patterns import parse_pattern


@st.composite
def weights(draw):
    """A weight with zeros of some structure, its groups and a band height."""
    groups = draw(st.sampled_from([1, 1, 2, 3, 5]))
    shape = (groups * draw(st.integers(1, 21)), draw(st.integers(1, 19)))
    taps = draw(st.sampled_from([None, (1, 1), (3, 3), (1, 3)]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight = random.standard_normal(shape + (taps or ())).astype(np.float32)
    unit = draw(st.sampled_from([(8, 8), (8, 1), (1, 1)]))
    mask = random.random([-(-n // u) for n, u in zip(shape, unit, strict=True)]) < draw(st.floats(0, 1))
    mask = np.kron(mask, np.ones(unit, bool))[:shape[0], :shape[1]]
    return weight * mask.reshape(shape + (1,) * len(taps or ())), groups, draw(st.sampled_from([1, 2, 4, 8, 16]))


def bands_by_hand(weight, groups, rows):
    """The same lists, one weight at a time."""
    filters = weight.reshape(*weight.shape, 1, 1) if weight.ndim == 2 else weight
    outputs, inputs, height, width = filters.shape
    each = outputs // groups
    for group in range(groups):
        for first in range(group * each, (group + 1) * each, rows):
            last = min(first + rows, (group + 1) * each)
            columns = [(group * inputs + c, ky * width + kx, filters[first:last, c, ky, kx])
                       for c in range(inputs) for ky in range(height) for kx in range(width)
                       if any(filters[row, c, ky, kx] != 0 for row in range(first, last))]
            yield first, last - first, columns


@given(weights())
def test_bands_hold_every_weight_that_is_not_zero_in_order(case):
    weight, groups, rows = case
    bands = band_columns(weight, groups, rows)
    expected = list(bands_by_hand(weight, groups, rows))
    assert len(bands) == len(expected)
    for band, (first, count, columns) in enumerate(expected):
        inside = slice(bands.start[band], bands.start[band + 1])
        assert (bands.first_row[band], bands.rows[band]) == (first, count)
        assert bands.channel[inside].tolist() == [column[0] for column in columns]
        assert bands.tap[inside].tolist() == [column[1] for column in columns]
        assert np.array_equal(bands.weights(band), np.array([column[2] for column in columns]).reshape(-1, count))
    assert bands.kept == len(bands.values) == sum(count * len(columns) for _, count, columns in expected)
    assert bands.values.dtype == np.float32


@given(weights())
def test_densities_are_shares_of_the_work_left(case):
    weight, groups, _ = case
    found = layer_sparsity(weight, groups)
    filters = weight.reshape(*weight.shape, 1, 1) if weight.ndim == 2 else weight
    inputs, height, width = filters.shape[1:]
    whole = dict.fromkeys(("blocks", "blocks_per_tap", "columns", "columns_per_tap"), 0)
    for first, count, _ in bands_by_hand(weight, groups, 8):
        for left in range(0, inputs, 8):
            block = filters[first:first + count, left:left + 8] != 0
            whole["blocks"] += block.any() * block.size
            whole["blocks_per_tap"] += block.any(axis=(0, 1)).sum() * block.shape[0] * block.shape[1]
            whole["columns"] += block.any(axis=(0, 2, 3)).sum() * block.shape[0] * height * width
            whole["columns_per_tap"] += block.any(axis=0).sum() * block.shape[0]
    for unit, count in whole.items():
        assert getattr(found, unit) == pytest.approx(count / filters.size, abs=1e-12)
    assert found.elements == pytest.approx((filters != 0).mean(), abs=1e-12)


@pytest.mark.parametrize(("unit", "taps_together", "name"), [
    ((8, 8), True, "8x8 blocks"), ((8, 8), False, "8x8 blocks per tap"), ((8, 1), True, "8x1"),
    ((8, 1), False, "8x1 per tap"), ((1, 1), False, "unstructured"), (None, True, "dense")])
def test_the_pattern_is_named_after_the_coarsest_unit(unit, taps_together, name):
    random = np.random.default_rng(0)
    weight = random.standard_normal((64, 32, 3, 3)).astype(np.float32)
    if unit:
        taps = (1, 1) if taps_together else (3, 3)
        mask = random.random((64 // unit[0], 32 // unit[1], *taps)) < 0.5
        weight = weight * np.kron(mask, np.ones((*unit, 3 // taps[0], 3 // taps[1])))
    assert layer_sparsity(weight).pattern == name


@pytest.mark.parametrize(("text", "name"), [
    ("channel", "channels"), ("tile:32", "tile-wise"), ("tile-rows:32", "tile-wise"), ("tile:64:per-tap", "tile-wise per tap"),
    ("tile-rows:8", "8x1"), ("nm:2:4", "2:4"), ("nm:1:4", "1:4"), ("nm:4:8", "4:8"), ("nm:2:4:outputs", "2:4 along outputs"),
    ("vnm:16:2:8", "2:8"), ("tvw:32:2:4", "tile-wise with 2:4 inside"), ("tvw:32x16:2:4", "tile-wise with 2:4 inside"),
    ("unstructured", "unstructured"), ("tew:32:0.01", "unstructured"),
    ("block:32x32", "32x32 blocks"), ("block:16x32", "16x32 blocks")])
@pytest.mark.parametrize("dims", [(192, 96), (192, 96, 3, 3)])
def test_what_a_pruner_made_is_recognised(text, name, dims):
    pattern = parse_pattern(text)
    weight = np.random.default_rng(0).standard_normal(dims).astype(np.float32)
    sparsity = float(getattr(pattern, "sparsity", 0.75))
    weight *= pattern.mask(torch.from_numpy(weight).abs(), sparsity).numpy()
    expected = name.removesuffix(" per tap") if len(dims) == 2 else name
    assert layer_sparsity(weight).pattern == expected


def test_zeros_that_a_kernel_cannot_use_are_told():
    random = np.random.default_rng(0)
    weight = random.standard_normal((64, 64)).astype(np.float32)
    assert layer_sparsity(weight).unused_zeros(1.0) == ""
    weight[:, ::2] = 0
    columns = layer_sparsity(weight)
    assert columns.unused_zeros(columns.columns) == ""
    scattered = layer_sparsity(weight * (random.random(weight.shape) < 0.5))
    assert "no gain expected from 75% zeros (unstructured)" in scattered.unused_zeros(0.99)
    assert scattered.unused_zeros(0.5).endswith("zeros (unstructured), but only 50% of the work can be skipped")


def test_layers_are_found_by_node_name_and_other_weights_are_left_alone():
    conv, wide = np.zeros((8, 2, 3, 3), np.float32), np.ones((4, 8), np.float32)
    conv[:4] = 1
    image, features = TensorType((1, 4, 5, 5)), TensorType((1, 4))
    nodes = [Node("grouped", "conv2d", ("x", "conv.weight"), image, {"groups": 2}),
             Node("computed", "conv2d", ("x", "grouped"), image),
             Node("head", "linear", ("y", "head.weight"), features)]
    graph = Graph("g", {"x": image, "y": features}, {node.name: node for node in nodes}, ("head",),
                  {"conv.weight": conv, "head.weight": wide})
    found = find_sparsity(graph)
    assert list(found) == ["grouped", "head"]
    assert (found["grouped"].blocks, found["grouped"].groups, found["head"].pattern) == (0.5, 2, "dense")


def test_impossible_cuts_are_refused():
    with pytest.raises(GraphError, match="groups"):
        band_rows(outputs=10, groups=3, rows=8)
    with pytest.raises(GraphError, match="shape"):
        kept_columns(np.ones(5))
