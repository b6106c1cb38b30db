"""Placement: phases run whole, in numpy, give what the int8 reference gives; what has no place is one error that names it.

Layers are drawn so that they have a place: an error is one of placement's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phase_oracle import run_phases
from placed_layers import PLACED, REFUSED, placed_layers, placed_networks
from quantized_layers import MAKERS, quantized
from small_networks import Build

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


@pytest.mark.parametrize("op", PLACED)
@settings(max_examples=20)
@given(st.data())
def test_layers_that_have_a_place_are_right(op, data):
    assert_phases_are_right(quantized(data.draw(placed_layers(op)), data.draw(st.sampled_from([POWERS, Scheme()]))))


@settings(max_examples=20)
@given(placed_networks(5))
def test_networks_of_them_are_right(graph):
    assert_phases_are_right(quantized(graph, POWERS))


@pytest.mark.parametrize("name", REFUSED)
@settings(max_examples=5)
@given(st.data())
def test_what_has_no_place_is_refused_by_name_with_the_reason(name, data):
    b = Build(1, 6, 6, 7, seed=data.draw(st.integers(0, 2**16)))
    graph = quantized(b.done(REFUSED[name].make(data.draw, b, b.x)), POWERS)
    with pytest.raises(CompileError, match=REFUSED[name].message) as refused:
        place(graph)
    assert str(refused.value).startswith(("node '", "value '"))


@pytest.mark.parametrize("op", PLACED)
@settings(max_examples=2)
@given(st.data())
def test_batches_of_two_are_refused(op, data):
    b = Build(2, 6, 6, 7)
    graph = quantized(b.done(MAKERS[op](data.draw, b, b.x)), POWERS)
    with pytest.raises(CompileError, match="only batches of one image are lowered"):
        place(graph)


def test_every_operator_is_placed_or_refused():
    assert set(MAKERS) == set(PLACED) | (set(REFUSED) & set(MAKERS))
