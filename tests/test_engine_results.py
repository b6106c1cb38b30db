"""Compiled networks give the float64 reference's results, and the same bits for any number of threads and on any memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from engine_checks import TARGETS, assert_holds, assert_same_bits, assert_writes_inside, compiled, random_inputs
from hypothesis import given
from hypothesis import strategies as st
from operator_networks import OperatorGenerator
from small_networks import Build

from zellige.graph.ir import Graph

Network = Callable[[Build], tuple[str, ...]]
NETWORKS: dict[str, tuple[tuple[int, ...], Network]] = {}
"""Name → the input's shape, and what makes the outputs of a network from a builder and its input."""

PADDED = {"padding": (1, 1, 1, 1)}


def network(*shape: int) -> Callable[[Network], Network]:
    def enter(make: Network) -> Network:
        NETWORKS[make.__name__] = shape, make
        return make
    return enter


def graph_of(name: str) -> Graph:
    shape, make = NETWORKS[name]
    b = Build(*shape, dtype="float32", seed=len(name))
    return b.done(*make(b))


def small_conv(b: Build, x: str, outputs: int, kernel: int = 3, **attributes: object) -> str:
    """A convolution whose outputs are about as large as its inputs, and a relu."""
    y = b.conv(x, outputs, kernel, bias=True, **attributes)
    weight = b.graph.constants[b.graph.nodes[y].inputs[1]]
    weight /= weight[0].size ** 0.5
    return b.activation(y, "relu")


@network(1, 3, 13, 11)
def plain_chain(b):
    y = small_conv(b, small_conv(b, b.x, 16, **PADDED), 24, stride=(2, 2), **PADDED)
    return (small_conv(b, y, 7, 1),)


@network(2, 5, 9, 17)
def uneven_padding_and_dilation(b):
    y = small_conv(b, b.x, 9, padding=(2, 1, 0, 3))
    return (small_conv(b, y, 8, padding=(2, 2, 4, 4), dilation=(2, 4)),)


@network(3, 8, 7, 7)
def grouped_and_depthwise(b):
    y = small_conv(b, b.x, 16, groups=4, **PADDED)
    y = small_conv(b, y, 16, groups=16, **PADDED)
    return (small_conv(b, y, 32, 5, groups=16, stride=(2, 1), padding=(2, 2, 2, 2)),)


@network(2, 12, 6, 10)
def residual_blocks(b):
    y = b.x
    for _ in range(3):
        y = b.activation(b("add", b.conv(small_conv(b, y, 4, **PADDED), 12, 1), y), "relu")
    return (y,)


@network(1, 8, 5, 5)
def residual_from_an_output(b):
    y = small_conv(b, b.x, 8, **PADDED)
    z = b("add", b.conv(y, 8, 3, **PADDED), y)
    return y, z, y


@network(2, 6, 8, 9)
def dense_growth(b):
    """Every layer reads all that came before it, as in DenseNet."""
    y = b.x
    for _ in range(4):
        y = b("concat", y, small_conv(b, small_conv(b, y, 8, 1), 5, **PADDED), dimension=1)
    return (small_conv(b, y, 6, 1),)


@network(1, 6, 7, 8)
def dense_growth_from_a_list(b):
    """The same, spelled as the concatenation of all parts at each layer."""
    parts = [b.x]
    for _ in range(4):
        joined = b("concat", *parts, dimension=1) if len(parts) > 1 else parts[0]
        parts.append(small_conv(b, joined, 4, **PADDED))
    return (b("concat", *parts, dimension=1),)


@network(2, 4, 6, 6)
def nested_concatenation(b):
    parts = [small_conv(b, b.x, count, **PADDED) for count in (3, 8, 5, 1)]
    inner = b("concat", parts[0], parts[1], dimension=1)
    return small_conv(b, inner, 4, **PADDED), b("concat", parts[2], inner, parts[3], dimension=1)


@network(1, 4, 5, 9)
def a_part_used_twice(b):
    y = small_conv(b, b.x, 4, **PADDED)
    return (b("concat", y, b.activation(y, "tanh"), y, dimension=1),)


@network(1, 4, 5, 9)
def a_part_of_two_wholes(b):
    y, z = small_conv(b, b.x, 4, **PADDED), small_conv(b, b.x, 4, 1)
    return b("concat", y, z, dimension=1), b("concat", z, y, dimension=1)


@network(3, 4, 5, 6)
def the_input_as_a_part(b):
    joined = b("concat", b.x, small_conv(b, b.x, 4, **PADDED), b.x, dimension=1)
    return small_conv(b, joined, 5, **PADDED), joined


@network(1, 4, 6, 7)
def an_output_that_is_a_part(b):
    y = small_conv(b, b.x, 8, **PADDED)
    joined = b("concat", y, small_conv(b, y, 8, **PADDED), dimension=1)
    return y, small_conv(b, joined, 3, **PADDED), joined


@network(2, 4, 5, 7)
def parts_that_only_move(b):
    """A whole that holds a value and the same value moved: they share a buffer, and not their places."""
    y = small_conv(b, b.x, 6, **PADDED)
    return (b("concat", y, b("channel_shuffle", y, groups=2), b("slice", y, dimension=1, start=1, stop=6, step=2), dimension=1),)


@network(2, 3, 4, 6)
def concatenation_along_the_rest(b):
    y = small_conv(b, b.x, 3, **PADDED)
    tall = b("concat", y, b.x, dimension=2)
    return b("concat", tall, tall, dimension=3), b("concat", y, b.x, y, dimension=0)


@network(2, 16, 6, 5)
def shuffled_halves(b):
    """A unit of ShuffleNet: one half stays, the other is convolved, both are interleaved."""
    y = b.x
    for _ in range(2):
        left, right = (b("slice", y, dimension=1, start=start, stop=start + 8) for start in (0, 8))
        right = small_conv(b, small_conv(b, right, 8, 1), 8, groups=8, **PADDED)
        y = b("channel_shuffle", b("concat", left, small_conv(b, right, 8, 1), dimension=1), groups=2)
    return (y,)


@network(1, 12, 5, 5)
def slices_of_slices(b):
    y = small_conv(b, b.x, 12, 1)
    middle = b("slice", y, dimension=1, start=2, stop=10)
    inner = b("slice", middle, dimension=1, start=3, stop=6)
    first = b("slice", y, dimension=1, start=0, stop=3)
    return small_conv(b, middle, 8, **PADDED), small_conv(b, inner, 2, **PADDED), b("add", inner, first)


@network(2, 6, 9, 9)
def squeeze_and_excitation(b):
    y = small_conv(b, b.x, 16, groups=2, **PADDED)
    gate = b("mean", y, dimensions=(2, 3), keep=True)
    gate = b.activation(b.conv(small_conv(b, gate, 4, 1), 16, 1, bias=True), "sigmoid")
    return (small_conv(b, b("multiply", y, gate), 8, 1),)


@network(3, 4, 6, 6)
def classifier(b):
    y = b("max_pool2d", small_conv(b, b.x, 8, **PADDED), kernel=(2, 2), stride=(2, 2))
    y = b("reshape", y, shape=(3, 72))
    return (b("softmax", b("linear", y, b.random(10, 72), b.random(10)), dimension=1),)


@network(1, 20, 1, 1)
def single_pixels(b):
    y = small_conv(b, small_conv(b, b.x, 33, 1), 17, **PADDED)
    return (b("add", y, b.conv(b.x, 17, 1)),)


@network(2, 7, 2, 3)
def tiny_maps(b):
    y = small_conv(b, small_conv(b, b.x, 9, **PADDED), 6, **PADDED)
    return small_conv(b, y, 5, stride=(2, 2), **PADDED), b("concat", b.x, y, dimension=1)


@network(3, 6, 5, 4)
def a_map_that_ends_in_one_pixel(b):
    y = b.conv(b.x, 18, bias=True, kernel=4, padding=(0, 0, 0, 0))
    y = small_conv(b, y, 18, stride=(2, 2), padding=(0, 1, 1, 1))
    return (b("reshape", y, shape=(3, 18)),)


@network(1, 8, 1, 40)
def a_single_row(b):
    y = small_conv(b, b.x, 8, padding=(1, 1, 1, 1))
    return (b("max_pool2d", y, kernel=(1, 3), stride=(1, 2), padding=(0, 0, 1, 1)),)


@network(1, 8, 23, 1)
def a_single_column(b):
    return (small_conv(b, small_conv(b, b.x, 8, padding=(1, 1, 1, 1)), 8, stride=(3, 3), padding=(1, 1, 1, 1)),)


@network(2, 6, 6, 6)
def several_inputs(b):
    y, unused = b.input(2, 4, 6, 6), b.input(5)
    z = b.input(2, 1, 1, 1)
    assert unused
    joined = b("concat", b.x, small_conv(b, y, 6, **PADDED), dimension=1)
    return b("multiply", joined, z), b("add", y, z)


@network(2, 5, 4, 7)
def inputs_that_are_outputs(b):
    """As they are, reshaped, and beside a strided convolution that would read them where the caller has them."""
    same = b("reshape", b.x, shape=(2, 5, 4, 7))
    return same, b("reshape", b.x, shape=(2, 140)), small_conv(b, b.x, 3, stride=(2, 2), **PADDED), same


@network(1, 3, 12, 12)
def an_input_that_only_a_strided_convolution_reads(b):
    """It is read where the caller has it."""
    y = small_conv(b, b.x, 8, 5, stride=(2, 2), padding=(2, 2, 1, 3))
    return (b("add", y, small_conv(b, b.x, 8, 3, stride=(2, 2), padding=(0, 1, 0, 1))),)


@network(2, 3, 9, 10)
def pixels_moved(b):
    y = b("transpose", small_conv(b, b.x, 4, **PADDED), order=(0, 2, 3, 1))
    y = b.activation(b("linear", y, b.random(6, 4), b.random(6)), "gelu")
    y = b("transpose", y, order=(0, 3, 1, 2))
    return small_conv(b, y, 4, **PADDED), b("interpolate", y, mode="bilinear", size=(5, 20))


@network(2, 8, 10, 10)
def a_constant_map_is_added(b):
    y = small_conv(b, b.x, 8, **PADDED)
    return (b("add", b.conv(y, 8, 3, **PADDED), b.random(2, 8, 10, 10)),)


@network(1, 8, 12, 12)
def rows_of_weights_that_are_zero(b):
    """Bands that keep no column at all still write their bias, through every path."""
    outputs = []
    for kernel in (1, 3):
        y = b.conv(b.x, 40, kernel, bias=True, padding=(kernel // 2,) * 4)
        b.graph.constants[b.graph.nodes[y].inputs[1]][8:] = 0
        outputs.append(y)
    flat = b("linear", b("mean", b.x, dimensions=(2, 3), keep=False), b.constant([[0.0] * 8] * 20), b.random(20))
    return *outputs, flat


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str, target: str) -> None:
    assert_holds(graph_of(name), target)


@pytest.mark.parametrize("name", ["plain_chain", "dense_growth", "residual_blocks", "rows_of_weights_that_are_zero"])
def test_without_winograd(name: str) -> None:
    engine = assert_holds(graph_of(name), winograd=False)
    assert not any("winograd" in layer.path for layer in engine.layers)


@pytest.mark.parametrize("name", ["plain_chain", "uneven_padding_and_dilation", "dense_growth", "squeeze_and_excitation"])
def test_paths_chosen_by_the_clock(name: str) -> None:
    engine = assert_holds(graph_of(name), tune="measure")
    choices = [layer for layer in compiled(graph_of(name)).layers if "model:" in layer.reason]
    assert choices or name == "squeeze_and_excitation"
    assert all("measured" in layer.reason for layer in engine.layers if layer.name in {choice.name for choice in choices})


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_is_written_outside_of_a_buffer(name: str) -> None:
    assert_writes_inside(graph_of(name))


@given(seed=st.integers(0, 2**20), winograd=st.booleans(), target=st.sampled_from(TARGETS))
def test_nothing_is_written_outside_of_a_buffer_in_any_network(seed: int, winograd: bool, target: str) -> None:
    assert_writes_inside(OperatorGenerator(seed).network(8), target=target, winograd=winograd)
    wider = OperatorGenerator(seed, channels=(16, 24, 33), sizes=(9, 20, 34)).network(4)
    assert_writes_inside(wider, target=target, winograd=winograd)


@given(seed=st.integers(0, 2**20), length=st.integers(1, 12))
def test_any_network_gives_the_same_bits(seed: int, length: int) -> None:
    graph = OperatorGenerator(seed).network(length)
    assert_same_bits(compiled(graph), random_inputs(graph), threads=(1, 2, 4))


@given(seed=st.integers(0, 2**20), winograd=st.booleans())
def test_any_wider_network_gives_the_same_bits(seed: int, winograd: bool) -> None:
    graph = OperatorGenerator(seed, channels=(16, 24, 33), sizes=(9, 20, 34)).network(5)
    assert_same_bits(compiled(graph, winograd=winograd), random_inputs(graph), threads=(2, 3))
