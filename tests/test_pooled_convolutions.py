"""Max pooling in the output transform of Winograd's convolutions: where it may be, and that results are those of two layers."""

from __future__ import annotations

import pytest
from engine_checks import assert_holds, assert_same_bits, random_inputs
from hypothesis import given
from hypothesis import strategies as st
from small_networks import Build

from zellige.cpu.kernels.pool import PoolKernel
from zellige.engine import Engine
from zellige.graph.ir import Graph

POOL = {"kernel": (2, 2), "stride": (2, 2)}
PADDED = {"padding": (1, 1, 1, 1)}


def convolution(b: Build, x: str, outputs: int) -> str:
    """A 3 × 3 convolution whose outputs are about as large as its inputs."""
    y = b.conv(x, outputs, 3, bias=True, **PADDED)
    weight = b.graph.constants[b.graph.nodes[y].inputs[1]]
    weight /= weight[0].size ** 0.5
    return y


def network(height: int, width: int, channels: int = 16, images: int = 1, function: str = "relu", **pool: object) -> Graph:
    """Two convolutions, each pooled, of which the second has a reader that needs margins."""
    b = Build(images, channels, height, width, dtype="float32")
    y = b("max_pool2d", b.activation(convolution(b, b.x, 24), function), **(POOL | pool))
    y = b("max_pool2d", convolution(b, y, 17), **POOL)
    return b.done(b.conv(y, 8, 3, **PADDED))


def pools(engine: Engine) -> int:
    """Calls of the pooling kernel."""
    return sum(isinstance(call.kernel, PoolKernel) for call in engine._program.plan.calls)


@given(data=st.data())
def test_any_map(data):
    """Odd sizes lose their last row or column, small maps lie flat, large ones have margins."""
    graph = network(data.draw(st.integers(8, 46)), data.draw(st.integers(8, 46)), data.draw(st.sampled_from([8, 24])),
                    data.draw(st.integers(1, 2)), data.draw(st.sampled_from(["relu", "negate", "silu"])))
    engine = assert_holds(graph, path="winograd")
    assert pools(engine) == 0
    assert [layer.reason for layer in engine.layers if layer.op == "max_pool2d"] == [
        f"in the output transform of {node.inputs[0]}" for node in engine.graph if node.op == "max_pool2d"]


def test_the_same_bits_for_any_threads():
    graph = network(45, 38)
    assert_same_bits(assert_holds(graph, path="winograd"), random_inputs(graph))


@pytest.mark.parametrize("options", [{"winograd": False}, {"path": "dense"}], ids=["without", "dense"])
def test_other_paths_pool_by_themselves(options):
    assert pools(assert_holds(network(20, 23), **options)) == 2


def test_measuring_leaves_the_pools_of_other_paths_alone():
    engine = assert_holds(network(20, 23), tune="measure")
    fused = sum("output transform" in layer.reason for layer in engine.layers)
    assert pools(engine) + fused == 2


@pytest.mark.parametrize("pool", [
    {"kernel": (3, 3)}, {"stride": (1, 1)}, {"stride": (2, 1)}, {"padding": (1, 1, 1, 1)}, {"padding": (0, 1, 0, 1)},
    {"dilation": (2, 2)},
], ids=str)
def test_other_windows_stay_layers(pool):
    assert pools(assert_holds(network(21, 23, **pool), path="winograd")) == 1


def test_padding_that_no_window_needs_does_no_harm():
    assert pools(assert_holds(network(20, 22, padding=(0, 1, 0, 1)), path="winograd")) == 0


def test_a_map_that_others_read_is_made():
    b = Build(1, 16, 20, 20, dtype="float32")
    y = convolution(b, b.x, 16)
    graph = b.done(b("max_pool2d", y, **POOL), b.activation(y, "relu"))
    assert pools(assert_holds(graph, path="winograd")) == 1


def test_an_output_of_the_network_is_made():
    b = Build(1, 16, 20, 20, dtype="float32")
    y = convolution(b, b.x, 16)
    graph = b.done(y, b("max_pool2d", y, **POOL))
    assert pools(assert_holds(graph, path="winograd")) == 1


def test_sums_are_pooled_by_themselves():
    """Residual connections add whole maps, in the order of the map's rows."""
    b = Build(1, 16, 20, 20, dtype="float32")
    y = b("max_pool2d", b("add", convolution(b, b.x, 16), b.activation(b.x, "relu")), **POOL)
    assert pools(assert_holds(b.done(y), path="winograd")) == 1


def test_a_single_pixel_is_pooled_by_itself():
    b = Build(1, 16, 3, 3, dtype="float32")
    assert pools(assert_holds(b.done(b("max_pool2d", convolution(b, b.x, 16), **POOL)), path="winograd")) == 1


def test_parts_of_concatenations_are_pooled_in_place():
    b = Build(1, 16, 20, 20, dtype="float32")
    parts = [b("max_pool2d", convolution(b, b.x, outputs), **POOL) for outputs in (8, 24)]
    assert pools(assert_holds(b.done(b("concat", *parts, dimension=1)), path="winograd")) == 0
