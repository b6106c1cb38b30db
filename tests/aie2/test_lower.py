"""Lowering: programs, simulated, give what the int8 reference gives, layer kind by layer kind and for whole networks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantized_layers import MAKERS, layers, quantized

from zellige.aie2.cycles import step_cycles
from zellige.aie2.device import DEVICES
from zellige.aie2.lower import lower
from zellige.aie2.overlay import Overlay, overlay
from zellige.aie2.simulate import simulate
from zellige.aie2.step import step
from zellige.aie2.tensor import host_value
from zellige.errors import CompileError
from zellige.graph.quantized import QuantizedGraph
from zellige.graph.quantized_reference import run_int8
from zellige.passes.scales import Scheme

OVERLAYS = st.sampled_from([overlay(DEVICES[device], rows, columns) for device, rows, columns in
                            [("paper", 1, 1), ("paper", 2, 2), ("paper", 5, 3), ("paper", 2, 4), ("npu1", 3, 2), ("ve2302", 2, 3)]])


def assert_runs_right(graph: QuantizedGraph, on: Overlay) -> None:
    program = lower(graph, on)
    random = np.random.default_rng(0)
    inputs = [random.integers(-128, 128, shape).astype(np.int8) for shape in graph.inputs.values()]
    host = {one.name: one for one in program.host}
    fed = {}
    for text, array in zip(program.inputs.values(), inputs, strict=True):
        value = host_value(text)
        held = host[value.buffer].data
        fed[value.buffer] = np.zeros(host[value.buffer].size, np.uint8) if held is None else held.view(np.uint8).copy()
        value.write(fed[value.buffer], array)
    run = simulate(program, fed, step, lambda packet: step_cycles(packet, on.device))
    for name, expected in run_int8(graph, inputs).items():
        value = host_value(program.outputs[name])
        np.testing.assert_array_equal(value.read(run.host[value.buffer]), expected, err_msg=str(graph.nodes.get(name)))


@pytest.mark.parametrize("op", MAKERS)
@settings(max_examples=8)
@given(st.data())
def test_layers_run_right(op, data):
    graph = quantized(data.draw(layers(op)), Scheme(powers_of_two=True, rows=8))
    on = data.draw(OVERLAYS)
    try:
        lower(graph, on)
    except CompileError as error:
        assert "can't run on AIE2" in str(error) or "batches" in str(error), error
        return
    assert_runs_right(graph, on)
