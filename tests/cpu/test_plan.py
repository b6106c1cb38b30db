"""Plans as data: every call's memory is known, margins are cleared once, and what no kernel computes is refused by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zellige.cpu.calls import Call, External, Place, Plan, Scratch
from zellige.cpu.isa import ISAS, Isa
from zellige.cpu.kernels.copy import FillKernel
from zellige.cpu.layout import Planes
from zellige.cpu.lower.lowering import Options
from zellige.cpu.lower.table import LOWERINGS
from zellige.cpu.memory import lifetimes
from zellige.cpu.plan import plan_graph
from zellige.cpu.storage import Storage
from zellige.errors import CompileError
from zellige.graph.builder import Constant, GraphBuilder
from zellige.graph.ir import Fused, Graph, TensorType
from zellige.graph.operators import OPERATORS

WIDEST = next(iter(ISAS.values()))
MORE = settings(max_examples=2 * settings().max_examples)


class Network:
    """A graph in the making, from inputs of given shapes."""

    def __init__(self, **inputs: tuple[int, ...]) -> None:
        self.builder = GraphBuilder("net", {name: TensorType(shape) for name, shape in inputs.items()})
        self.numbers = np.random.default_rng(0)

    def __call__(self, op: str, *operands: object, **attributes: object) -> str:
        return self.builder.step(op, *operands, **attributes)  # type: ignore[arg-type]

    def random(self, *shape: int) -> Constant:
        return Constant(self.numbers.standard_normal(shape))

    def conv(self, x: str, outputs: int, kernel: int = 3, **attributes: object) -> str:
        return self("conv2d", x, self.random(outputs, self.builder.shape(x)[1], kernel, kernel), self.random(outputs), **attributes)

    def graph(self, *outputs: str) -> Graph:
        return self.builder.finish(outputs, None, None)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """A block as residual networks have it, of any sizes and any tail, with a second input that joins late."""
    images, channels, height, width = (draw(st.integers(1, most)) for most in (2, 20, 12, 12))
    network = Network(x=(images, channels, height, width), unused=(3,), late=(images, 8, 1, 1))
    padding = draw(st.tuples(*[st.integers(1, 2)] * 4))
    y = network.conv("x", 8, padding=padding, stride=draw(st.sampled_from([(1, 1), (2, 2)])))
    y = network("activation", y, function="relu")
    z = network.conv(y, 8, padding=(1, 1, 1, 1))
    z = network("add", z, y) if draw(st.booleans()) else network("concat", z, y, dimension=1)
    z = network("multiply", network("slice", z, dimension=1, start=0, stop=8), "late")
    if draw(st.booleans()):
        z = network("linear", network("mean", z, dimensions=(2, 3), keep=False), network.random(5, 8))
    return network.graph(z, y) if draw(st.booleans()) else network.graph(z)


isas = st.sampled_from(list(ISAS.values()))


@MORE
@given(graph=graphs(), isa=isas, winograd=st.booleans())
def test_every_call_has_what_it_needs(graph: Graph, isa: Isa, winograd: bool) -> None:
    """Planning needs no machine that could run the code."""
    plan = plan_graph(graph, isa, Options(winograd=winograd))
    for call in plan.calls:
        assert set(call.slots) <= set(call.kernel.SLOTS) and len(call.costs) > 0 and call.costs.min() >= 0
        assert call.costs.dtype.kind == "i"
        for slot in call.slots.values():
            if isinstance(slot, Place):
                assert 0 <= slot.offset < plan.buffers[slot.buffer]
            elif isinstance(slot, np.ndarray):
                assert slot.dtype in (np.int32, np.float32, np.uint16) and slot.flags.c_contiguous
            else:
                assert isinstance(slot, (int, External, Scratch))
    assert plan.calls[-1].barrier


@MORE
@given(graph=graphs(), isa=isas)
def test_inputs_are_read_and_outputs_written(graph: Graph, isa: Isa) -> None:
    calls = plan_graph(graph, isa).calls
    externals = {slot for call in calls for slot in call.slots.values() if isinstance(slot, External)}
    read = [External("input", index) for index, name in enumerate(graph.inputs) if name != "unused"]
    assert externals >= {*read, *(External("output", index) for index in range(len(graph.outputs)))}
    assert {call.label for call in calls} <= {*graph.nodes, *graph.inputs, "outputs", "margins"}


@MORE
@given(graph=graphs())
def test_the_same_graph_gives_the_same_plan(graph: Graph) -> None:
    assert str(plan_graph(graph, WIDEST)) == str(plan_graph(replace(graph), WIDEST))


@MORE
@given(graph=graphs())
def test_every_node_is_reported_once_in_order(graph: Graph) -> None:
    layers = plan_graph(graph, WIDEST).layers
    assert [layer.name for layer in layers] == list(graph.nodes)
    for layer in layers:
        assert layer.path and layer.reason and 0 <= layer.kept_macs <= layer.macs and 0 <= layer.density <= 1
        assert (layer.macs > 0) == (layer.op in ("conv2d", "linear"))


@MORE
@given(graph=graphs(), isa=isas)
def test_margins_are_cleared_once_and_before_anyone_reads(graph: Graph, isa: Isa) -> None:
    plan, layouts = plan_graph(graph, isa), Storage(graph, isa.masks).layouts
    clears = [position for position, call in enumerate(plan.calls) if isinstance(call.kernel, FillKernel)]
    cleared = [target.buffer for position in clears if isinstance(target := plan.calls[position].slots["target"], Place)]
    assert len(set(cleared)) == len(cleared) == len(clears)
    life, phase = lifetimes(plan.calls), np.cumsum([0, *(call.barrier for call in plan.calls)])
    for position, buffer in zip(clears, cleared, strict=True):
        assert phase[position] == life[buffer][0]  # while its first writer runs, and so before its first reader
        assert not plan.calls[position].barrier
    for name, layout in layouts.items():
        if isinstance(layout, Planes) and layout.margins.any and len(layout.margin_runs()) and name in life:
            assert name in cleared


def test_a_plan_as_text() -> None:
    network = Network(x=(1, 3, 72, 72))
    plan = plan_graph(network.graph(network.conv("x", 8, padding=(1, 1, 1, 1))), WIDEST)
    text = str(plan)
    counts = f"{len(plan.calls)} calls, {len(plan.kernels)} kernels, {len(plan.buffers)} buffers"
    assert text.startswith(f"plan for {WIDEST.name}: {counts}\n")
    for call in plan.calls:
        assert f"{call.label}: {call.kernel.symbol} × {len(call.costs)} items" in text
    assert "source=External(kind='input', index=0)" in text and "(no barrier)" in text


def test_kernels_are_listed_once_in_order_of_use() -> None:
    network = Network(x=(1, 16, 9, 9))
    y = "x"
    for _ in range(4):
        y = network.conv(y, 16, padding=(1, 1, 1, 1))
    plan = plan_graph(network.graph(y), WIDEST)
    assert len(plan.kernels) == len(set(plan.kernels)) < len(plan.calls)
    first = {kernel: next(number for number, call in enumerate(plan.calls) if call.kernel == kernel) for kernel in plan.kernels}
    assert list(first.values()) == sorted(first.values())


# What is refused


def refused(graph: Graph, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        plan_graph(graph, WIDEST)


def test_every_operator_but_batch_normalisation_has_a_kernel() -> None:
    """It is always folded, or becomes a ``scale_shift``."""
    assert set(OPERATORS) - set(LOWERINGS) == {"batch_norm"}


def test_all_that_has_no_kernel_is_named_at_once() -> None:
    network = Network(x=(1, 4, 5, 5))
    ones = Constant(np.ones(4))
    y = network("batch_norm", network("batch_norm", "x", ones, ones, ones, ones), ones, ones, ones, ones)
    refused(network.graph(y), r"no CPU kernel for batch_norm \(batch_norm\), batch_norm_2 \(batch_norm\)")


@pytest.mark.parametrize("step", [Fused("activation", {"function": "relu"}), Fused("add", operand="x")], ids=str)
@pytest.mark.parametrize("op, attributes", [
    ("softmax", {"dimension": 1}), ("concat", {"dimension": 1}), ("slice", {"dimension": 1, "start": 0, "stop": 4}),
    ("channel_shuffle", {"groups": 2}), ("transpose", {"order": (0, 1, 2, 3)}),
    ("interpolate", {"mode": "nearest", "size": (5, 5)})])
def test_epilogues_that_no_kernel_has(op: str, attributes: dict[str, object], step: Fused) -> None:
    network = Network(x=(1, 4, 5, 5))
    graph = network.graph(network(op, "x", **attributes))
    node = replace(graph.nodes[op], epilogue=(step,))
    refused(graph.with_nodes([node]), rf"no CPU kernel for {op} \({op} followed by {step}\)")


def test_more_additions_than_kernels_take() -> None:
    network = Network(x=(1, 4, 5, 5))
    graph = network.graph(network.conv("x", 4, 1))
    node = replace(graph.nodes["conv2d"], epilogue=(Fused("add", operand="x"),) * 2)
    refused(graph.with_nodes([node]), r"conv2d followed by add x, add x")


def test_other_element_types() -> None:
    double = TensorType((1, 4), "f64")
    network = Network()
    network.builder.inputs["x"] = double
    refused(network.graph(network("activation", "x", function="relu")), r"activation in f64\), x \(f64\[1, 4\]\)")


def test_weights_that_are_computed() -> None:
    network = Network(x=(1, 4, 5, 5), w=(4, 4, 1, 1))
    graph = network.graph(network("conv2d", "x", "w"))
    refused(graph, "w must be a constant to be compiled; it is computed while the network runs")


def test_windows_over_constants() -> None:
    network = Network(x=(1, 1, 2, 2))
    y = network("add", network("max_pool2d", network.random(1, 1, 4, 4), kernel=(2, 2), stride=(2, 2)), "x")
    refused(network.graph(y), r"no CPU kernel for max_pool2d \(max_pool2d of a constant\)")


def test_calls_name_their_places() -> None:
    call = Call(FillKernel(), {"target": Place("a", 3), "items": np.zeros(1, np.int32), "run_count": 2}, np.array([4, 5]), "fill")
    assert call.places() == [Place("a", 3)] and call.cycles == 9 and Place("a", 3) + 4 == Place("a", 7)
    assert Plan("any").kernels == []
