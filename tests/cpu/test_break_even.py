"""Break-even: the share of zeros is as asked, and what is said of a level is what the planner says of such weights."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zellige.cpu.break_even import BLOCK, LEVELS, blocks_left, break_even, thinned
from zellige.cpu.isa import AVX512
from zellige.cpu.plan import plan_graph
from zellige.graph.ir import Graph, TensorType
from zellige.graph.operators import make_node


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([(), (1, 1), (3, 3)]), st.sampled_from(LEVELS))
def test_exactly_the_asked_share_of_blocks_is_zero(rows: int, columns: int, taps: tuple[int, ...], sparsity: float) -> None:
    weight = blocks_left((rows, columns, *taps), sparsity)
    corners = weight.reshape(rows, columns, -1)[::BLOCK, ::BLOCK]
    assert (corners == corners[..., :1]).all()
    assert (corners[..., 0] == 0).sum() == int(sparsity * corners[..., 0].size)
    blocks = np.repeat(np.repeat(corners, BLOCK, 0)[:rows], BLOCK, 1)[:, :columns]
    assert np.array_equal(weight.reshape(rows, columns, -1), blocks)


def network() -> Graph:
    """A convolution and a classifier."""
    x, weight = TensorType((1, 64, 14, 14)), TensorType((64, 64, 1, 1))
    conv = make_node("conv", "conv2d", ["x", "conv.weight"], [x, weight])
    mean = make_node("mean", "mean", ["conv"], [conv.type], {"dimensions": (2, 3)})
    linear = make_node("fc", "linear", ["mean", "fc.weight"], [mean.type, TensorType((10, 64))])
    constants = {"conv.weight": np.ones(weight.shape, np.float32), "fc.weight": np.ones((10, 64), np.float32)}
    return Graph("net", {"x": x}, {node.name: node for node in (conv, mean, linear)}, ("fc",), constants)


def test_levels_are_the_plans_of_thinned_weights() -> None:
    rows = {row.name: row for row in break_even(network(), AVX512)}
    assert list(rows) == ["conv", "fc"]
    half = {layer.name: layer.cycles for layer in plan_graph(thinned(network(), 0.5), AVX512).layers}
    assert rows["conv"].speedups[LEVELS.index(0.5)] == pytest.approx(rows["conv"].cycles / half["conv"])
    assert rows["conv"].speedups[0] == 1 and rows["conv"].speedups[-1] > 2
    assert rows["conv"].sparsity is not None and rows["conv"].sparsity <= 0.2
    assert list(rows["conv"].speedups) == sorted(rows["conv"].speedups)
