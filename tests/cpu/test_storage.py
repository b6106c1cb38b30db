"""Where values lie: inside of their buffers, apart from one another, with the rows and margins that their readers need."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zellige.cpu.calls import External, Place
from zellige.cpu.layout import Dense, Planes
from zellige.cpu.storage import MEETS_PIXEL_BY_PIXEL, Classes, Storage, is_direct, is_map
from zellige.errors import CompileError
from zellige.graph.builder import Constant, GraphBuilder
from zellige.graph.ir import Graph, TensorType
from zellige.passes.pipeline import optimize

MORE = settings(max_examples=6 * settings().max_examples)
NUMBERS = np.random.default_rng(0)


class Network:
    """A graph in the making, of convolutions, concatenations and slices, with names of one letter and a number."""

    def __init__(self, *shape: int) -> None:
        self.builder = GraphBuilder("net", {"x": TensorType(shape)})

    def __call__(self, op: str, *inputs: str, **attributes: object) -> str:
        return self.builder.step(op, *inputs, **attributes)

    def conv(self, x: str, outputs: int, kernel: int = 3, padding: int | tuple[int, ...] = 1, **attributes: object) -> str:
        weight = Constant(NUMBERS.standard_normal((outputs, self.builder.shape(x)[1], kernel, kernel)))
        pads = (padding,) * 4 if isinstance(padding, int) else padding
        return self.builder.step("conv2d", x, weight, padding=pads, **attributes)

    def concat(self, *parts: str) -> str:
        return self("concat", *parts, dimension=1)

    def slice(self, x: str, start: int, stop: int) -> str:
        return self("slice", x, dimension=1, start=start, stop=stop)

    def storage(self, *outputs: str) -> Storage:
        storage = Storage(self.builder.finish(outputs, None, None), masks=False)
        for name in storage.graph.nodes:
            assert storage[name] is storage[name]
        return storage


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Chains and joins of what shares planes: convolutions of any padding and stride, sums, concatenations, slices."""
    network = Network(draw(st.integers(1, 3)), draw(st.integers(2, 5)), draw(st.integers(4, 9)), draw(st.integers(4, 9)))
    values = ["x"]
    for _ in range(draw(st.integers(1, 9))):
        x = draw(st.sampled_from(values[-4:]))
        shape = network.builder.shape(x)
        alike = [value for value in values if network.builder.shape(value)[2:] == shape[2:]]
        kind = draw(st.sampled_from(["conv", "conv", "concat", "concat", "slice", "add", "relu", "wide", "shuffle"]))
        if kind == "conv":
            stride = draw(st.sampled_from([(1, 1), (1, 1), (2, 1)])) if min(shape[2:]) > 3 else (1, 1)
            values.append(network.conv(x, draw(st.integers(2, 6)), stride=stride))
        elif kind == "wide":
            sides = draw(st.tuples(*[st.integers(0, 3)] * 4))
            values.append(network.conv(x, 3, kernel=min(3, *shape[2:]), padding=sides))
        elif kind == "concat":
            values.append(network.concat(*draw(st.lists(st.sampled_from(alike), min_size=1, max_size=4))))
        elif kind == "slice":
            start = draw(st.integers(0, shape[1] - 1))
            values.append(network.slice(x, start, draw(st.integers(start + 1, shape[1]))))
        elif kind == "add":
            same = [value for value in alike if network.builder.shape(value) == shape]
            values.append(network("add", x, draw(st.sampled_from(same))))
        elif kind == "shuffle":
            values.append(network("channel_shuffle", x, groups=shape[1]))
        else:
            values.append(network("activation", x, function="relu"))
    outputs = [values[-1], *draw(st.lists(st.sampled_from(values), max_size=2))]
    return network.builder.finish(outputs, None, None)


def places(storage: Storage, name: str) -> np.ndarray:
    """The place in its buffer of every element of a value, shaped as the value."""
    stored = storage[name]
    assert isinstance(stored.place, Place)
    index = np.indices(stored.layout.shape)
    return stored.place.offset + np.tensordot(stored.layout.strides, index, 1)


@MORE
@given(graph=graphs(), masks=st.booleans())
def test_every_element_has_a_place_of_its_own_in_the_buffer(graph, masks):
    storage = Storage(graph, masks)
    for name in (*graph.inputs, *graph.nodes):
        stored = storage[name]
        assert stored.layout.shape == graph.type_of(name).shape
        if isinstance(stored.place, External):
            continue
        own = places(storage, name)
        assert own.min() >= 0 and own.max() < storage.sizes[stored.place.buffer]
        assert len(np.unique(own)) == own.size


@MORE
@given(graph=graphs(), masks=st.booleans())
def test_values_overlap_only_where_they_are_the_same_numbers(graph, masks):
    """Numbers are told apart by where they come from: a slice's and a concatenation's are those of their sources."""
    storage = Storage(graph, masks)
    source: dict[str, np.ndarray] = {}
    written: dict[tuple[str, int], int] = {}
    count = 0
    for name in (*graph.inputs, *graph.nodes):
        kind, node = graph.type_of(name), graph.nodes.get(name)
        if node is not None and node.op == "slice":
            start, stop = node.attributes["start"], node.attributes["stop"]
            source[name] = source[node.inputs[0]][:, start:stop]
        elif node is not None and node.op == "concat":
            source[name] = np.concatenate([source[part] for part in node.inputs], 1)
        else:
            source[name] = count + np.arange(kind.elements).reshape(kind.shape)
            count += kind.elements
        if isinstance(storage[name].place, External):
            continue
        buffer = storage[name].place.buffer
        for place, number in zip(places(storage, name).flat, source[name].flat, strict=True):
            assert written.setdefault((buffer, int(place)), int(number)) == number, f"{name} lies on other numbers"


@MORE
@given(graph=graphs())
def test_readers_find_the_rows_and_margins_that_they_need(graph):
    storage = Storage(graph, masks=False)
    for node in graph:
        target = storage[node.name].layout
        if not isinstance(target, Planes):
            continue
        beside = [storage[name].layout for name in node.inputs if name in graph.nodes or name in graph.inputs]
        if is_direct(graph, node):
            top, bottom, left, right = node.attributes["padding"]
            source = beside[0]
            assert (source.row, source.image - source.span) == (target.row, target.image - target.span)
            assert source.margins.top >= top and source.margins.bottom >= bottom
            assert source.row - source.width >= max(left, right)
            assert source.images == 1 or source.image - source.span >= max(top, bottom) * source.row
            assert source.head >= top * source.row + left
        elif node.op in MEETS_PIXEL_BY_PIXEL:
            maps = [layout for layout in beside if isinstance(layout, Planes) and layout.shape[2:] == target.shape[2:]]
            assert {(layout.row, layout.image) for layout in maps if layout.images == target.images} <= {(target.row, target.image)}


def test_small_maps_lie_flat_unless_someone_needs_margins():
    def layouts(size, depthwise=False, taps=3):
        network = Network(2, 4, size, size)
        y = network.conv("x", 4)
        weight = Constant(np.ones((4, 1 if depthwise else 4, taps, taps)))
        last = network("conv2d", y, weight, groups=4 if depthwise else 1, padding=(taps // 2,) * 4)
        storage = Storage(network.builder.finish([last], None, None), masks=True)
        return storage.is_flat(y), storage[y].layout

    flat, layout = layouts(14)
    assert flat and layout.row == 14 and not layout.margins.any and layout.image == layout.span
    flat, layout = layouts(14, depthwise=True)
    assert not flat and layout.row == 15 and layout.margins.any
    flat, layout = layouts(65)
    assert not flat and layout.row == 66 and layout.margins.any
    assert layouts(14, taps=255)[0] and not layouts(14, taps=257)[0], "masked kernels name 65536 taps"


def test_parts_are_written_in_place():
    network = Network(2, 4, 6, 6)
    parts = [network.conv("x", count) for count in (3, 5, 2)]
    whole = network.concat(*parts)
    storage = network.storage(network.conv(whole, 4))
    plane, channel = storage[whole].layout.plane, 0
    for part, count in zip(parts, (3, 5, 2), strict=True):
        assert storage.is_part(part, whole, channel * plane)
        assert not storage.is_part(part, whole, (channel + 1) * plane)
        channel += count
    assert storage[whole].layout.margins.top == 1  # for the convolution that reads it: the parts have it too
    assert storage[parts[1]].layout.margins == storage[whole].layout.margins


def test_a_growing_concatenation_lies_in_the_last_one():
    network = Network(1, 4, 6, 6)
    y = network.conv("x", 4)
    for _ in range(3):
        y = network.concat(y, network.conv(y, 2))
    storage = network.storage(y)
    wholes = [node.name for node in storage.graph if node.op == "concat"]
    assert len({storage[name].place.buffer for name in wholes}) == 1
    for one, other in combinations(wholes, 2):
        assert storage[one].place == storage[other].place


def test_a_slice_of_channels_is_a_view_and_no_other_slice():
    network = Network(2, 8, 5, 5)
    y = network.conv("x", 8)
    view = network.slice(y, 2, 6)
    inner = network.slice(view, 1, 3)
    step = network("slice", y, dimension=1, start=0, stop=8, step=2)
    rows = network("slice", y, dimension=2, start=0, stop=3)
    storage = network.storage(view, inner, step, rows)
    plane = storage[y].layout.plane
    assert storage[view].place == storage[y].place + 2 * plane and storage[inner].place == storage[y].place + 3 * plane
    assert storage.views == {view, inner}


def test_what_moves_beside_its_source_is_no_view():
    network = Network(1, 4, 5, 5)
    y = network.conv("x", 4)
    shuffled = network("channel_shuffle", y, groups=2)
    storage = network.storage(network.concat(y, shuffled))
    assert storage[shuffled].place.buffer == storage[y].place.buffer
    assert shuffled not in storage.views


def test_dense_values_are_reshaped_where_they_lie():
    network = Network(2, 6, 1, 1)
    flat = network("reshape", network("activation", "x", function="relu"), shape=(2, 6))
    map_like = network("reshape", flat, shape=(1, 3, 2, 2))
    storage = network.storage(flat, map_like)
    assert flat in storage.views and map_like not in storage.views
    assert isinstance(storage[flat].layout, Dense) and isinstance(storage[map_like].layout, Planes)


def test_an_input_stays_with_the_caller_only_if_all_readers_stage_it():
    for also, where in (("strided", External), ("direct", Place), ("output", Place)):
        network = Network(1, 3, 9, 9)
        y = network.conv("x", 4, stride=(2, 2))
        others = {"strided": lambda net=network: net.conv("x", 2, stride=(2, 1)), "direct": lambda net=network: net.conv("x", 2),
                  "output": lambda net=network: net("activation", "x", function="relu")}
        storage = network.storage(y, others[also]())
        assert isinstance(storage["x"].place, where), also


def test_only_maps_lie_in_planes():
    assert is_map(TensorType((1, 8, 1, 2))) and is_map(TensorType((2, 1, 3, 1)))
    for shape in ((1, 8, 1, 1), (1, 8), (8,), (), (1, 2, 3), (1, 2, 3, 4, 5)):
        assert not is_map(TensorType(shape))


def test_buffers_have_names_of_their_own():
    storage = Storage(small(), masks=True)
    names = [storage.reserve("y staged", Dense((size,))).place.buffer for size in (5, 7, 9)]
    assert len(set(names)) == 3 and [storage.sizes[name] for name in names] == [5, 7, 9]


def small() -> Graph:
    network = Network(1, 3, 4, 4)
    return network.builder.finish([network.conv("x", 2)], None, None)


def test_a_buffer_beyond_the_reach_of_tables():
    with pytest.raises(CompileError, match=r"y of 2147483648 elements is larger than 2147483647: use a smaller batch or input"):
        Storage(small(), masks=True).reserve("y", Dense((2**31,)))


@given(pairs=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_classes_are_the_connected_names(pairs):
    classes = Classes()
    connected = np.eye(10, dtype=bool)
    for left, right in pairs:
        classes.join(str(left), str(right))
        connected[left, right] = connected[right, left] = True
    for _ in range(4):
        connected = connected @ connected
    for left in range(10):
        for right in range(10):
            assert (classes[str(left)] == classes[str(right)]) == connected[left, right]


def residual_blocks(last_reads: bool = False, output: bool = False) -> tuple[Storage, str, str]:
    """A convolution that adds what another one read before it: where values lie, the name of what is added, and the sum's."""
    network = Network(1, 4, 9, 9)
    x = network.conv("x", 4)
    z = network("add", network.conv(network.conv(x, 4), 4), x)
    last = network("add", network.conv(z, 4), x) if last_reads else network.conv(z, 4)
    graph = optimize(network.builder.finish([last, x] if output else [last], None, None))
    first = next(node.name for node in graph if any(step.op == "add" for step in node.epilogue))
    return Storage(graph, masks=False), x, first


def test_a_sum_is_written_over_what_it_adds_if_nobody_reads_that_again():
    storage, x, total = residual_blocks()
    assert storage[total] == storage[x]
    assert total not in storage.sizes
    for options in ({"last_reads": True}, {"output": True}):
        storage, x, total = residual_blocks(**options)
        assert storage[total].place != storage[x].place, options
