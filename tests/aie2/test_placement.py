"""Placement: phases run whole, in numpy, give what the int8 reference gives; what has no place is one error that names it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phase_oracle import run_phases
from quantized_layers import MAKERS, layers, quantized

from zellige.aie2.lowering.place import place
from zellige.errors import CompileError
from zellige.graph.quantized import QuantizedGraph
from zellige.graph.quantized_reference import run_int8
from zellige.passes.scales import Scheme

POWERS = Scheme(powers_of_two=True, rows=8)


def random_steps(graph: QuantizedGraph, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.integers(-128, 128, shape).astype(np.int8) for shape in graph.inputs.values()]


def assert_phases_are_right(graph: QuantizedGraph) -> None:
    inputs = random_steps(graph)
    came, expected = run_phases(graph, inputs), run_int8(graph, inputs, keep=list(graph.nodes))
    for name in graph.nodes:
        np.testing.assert_array_equal(came[name], expected[name], err_msg=str(graph.nodes[name]))


@pytest.mark.parametrize("op", MAKERS)
@settings(max_examples=20)
@given(st.data())
def test_layers_are_placed_or_refused_by_name(op, data):
    graph = quantized(data.draw(layers(op)), data.draw(st.sampled_from([POWERS, Scheme()])))
    try:
        place(graph)
    except CompileError as error:
        assert str(error).startswith(("node '", "value '")), error
        assert "can't run on AIE2" in str(error) or "batches" in str(error), error
        return
    assert_phases_are_right(graph)
