"""Winograd with tiles of 2 × 2, in whole networks: results, and where the planner takes it."""

from __future__ import annotations

import pytest
from engine_checks import assert_close, assert_holds, assert_same_bits, compiled, random_inputs
from hypothesis import given
from hypothesis import strategies as st
from small_networks import Build

from zellige.cpu.break_even import blocks_left
from zellige.cpu.calls import LayerPlan
from zellige.cpu.isa import AVX512
from zellige.cpu.lower.lowering import Options
from zellige.cpu.plan import plan_graph
from zellige.graph.ir import Graph, TensorType
from zellige.graph.operators import make_node

SMALL = "small winograd"


def residual_block(side: tuple[int, int], channels: int, images: int) -> Graph:
    """Two 3 × 3 convolutions and the sum with what went in, between 1 × 1 convolutions as networks have them."""
    b = Build(images, 8, *side, dtype="float32")
    x = b.conv(b.x, channels, 1)
    y = b.activation(b.conv(x, channels, 3, bias=True, padding=(1, 1, 1, 1)), "relu")
    y = b.activation(b("add", b.conv(y, channels, 3, bias=True, padding=(1, 1, 1, 1)), x), "relu")
    for node in b.graph:
        if node.op == "conv2d":
            weight = b.graph.constants[node.inputs[1]]
            weight /= weight[0].size ** 0.5
    return b.done(b.conv(y, 8, 3))


@given(data=st.data())
def test_any_small_map(data):
    """Against float64; the same bits for any number of threads."""
    side = (data.draw(st.integers(4, 16)), data.draw(st.integers(4, 16)))
    graph = residual_block(side, data.draw(st.sampled_from([8, 20, 32])), data.draw(st.integers(1, 3)))
    engine = assert_holds(graph, path=SMALL)
    assert [layer.path for layer in engine.layers].count(SMALL) == 3


def test_the_clock_may_choose_it():
    graph = residual_block((8, 8), 32, 1)
    inputs = random_inputs(graph)
    engine = compiled(graph, tune="measure")
    measured = [layer for layer in engine.layers if "measured" in layer.reason]
    assert len(measured) == 3 and all(SMALL in layer.reason + layer.path for layer in measured)
    assert_close(graph, inputs, assert_same_bits(engine, inputs))


def test_it_can_be_turned_off():
    engine = assert_holds(residual_block((8, 8), 32, 1), winograd=False)
    assert not any("winograd" in layer.path + layer.reason for layer in engine.layers)


def planned(channels: int, side: int, sparsity: float) -> LayerPlan:
    """One 3 × 3 layer as planned for AVX-512, by the defaults of the model."""
    x, weight = TensorType((1, channels, side, side)), TensorType((channels, channels, 3, 3))
    node = make_node("conv", "conv2d", ["x", "w"], [x, weight], {"padding": (1, 1, 1, 1)})
    graph = Graph("net", {"x": x}, {"conv": node}, ("conv",), {"w": blocks_left(weight.shape, sparsity)})
    return plan_graph(graph, AVX512, Options()).layers[0]


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.75])
@pytest.mark.parametrize("channels, side", [(512, 7), (384, 8)])
def test_maps_of_sixteen_small_tiles_take_it(channels, side, sparsity):
    layer = planned(channels, side, sparsity)
    assert layer.path == SMALL and layer.reason.startswith("F(2×2, 3×3), 1 vectors of 16 tiles")


@pytest.mark.parametrize("channels, side", [(256, 14), (128, 28)])
def test_larger_maps_do_not(channels, side):
    layer = planned(channels, side, 0.5)
    assert layer.path == "winograd" and layer.reason.startswith("F(4×4, 3×3)") and f"by {SMALL}" in layer.reason


def test_where_large_tiles_are_many_it_is_not_even_asked():
    assert SMALL not in planned(16, 112, 0.5).reason
