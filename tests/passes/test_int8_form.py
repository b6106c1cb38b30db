"""Epilogues are split exactly where integers can't follow, and the network computes the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quantized_layers import EPILOGUES, layers
from small_networks import Build, assert_same_results, ops

from zellige.graph.ir import Graph
from zellige.passes.fuse import fuse_epilogues
from zellige.passes.int8_form import int8_form


@pytest.mark.parametrize("op", EPILOGUES)
@given(st.data())
def test_the_same_network(op, data):
    graph = data.draw(layers(op))
    assert_same_results(graph, int8_form(graph))


def chain(*steps: str) -> Graph:
    """A convolution and what follows it, fused."""
    b = Build(1, 4, 5, 5)
    value, other = b.conv(b.x, 4), b.conv(b.x, 4, name="other")
    for step in steps:
        value = b("add", value, other) if step == "add" else b.activation(value, step)
    return fuse_epilogues(b.done(value, other))


@pytest.mark.parametrize("steps, expected", [
    (("relu",), ["conv2d"]), (("add", "relu6"), ["conv2d"]), (("silu",), ["conv2d", "activation"]),
    (("add", "silu"), ["conv2d", "activation"]), (("silu", "add"), ["conv2d", "activation", "add"]),
    (("relu", "add"), ["conv2d", "add"]), (("relu", "add", "relu"), ["conv2d", "add"]),
    (("relu", "relu6"), ["conv2d", "activation"]),
])
def test_what_stays_together(steps, expected):
    """Beside the other convolution, whose value is an output."""
    form = int8_form(chain(*steps))
    assert sorted(ops(form)) == sorted([*expected, "conv2d"])
    assert form.outputs == chain(*steps).outputs
    assert not any(node.epilogue for node in form if node.op == "activation")
