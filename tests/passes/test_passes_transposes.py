"""Transposes sink behind what can be computed before them, and cancel."""

import numpy as np
import pytest
from small_networks import Build, assert_same_results, ops

from zellige.passes.pipeline import optimize
from zellige.passes.transposes import sink_transposes

LAST, FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


@pytest.fixture
def b():
    return Build(2, 6, 4, 5)


def turned_norm(b, x):
    """Layer norm over the last dimension, written out."""
    centred = b("subtract", x, b("mean", x, dimensions=(3,), keep=True))
    spread = b("mean", b.activation(centred, "square"), dimensions=(3,), keep=True)
    normal = b("multiply", centred, b.activation(b("add", spread, b.constant(1e-6)), "rsqrt"))
    return b("add", b("multiply", normal, b.random(6)), b.random(6))


def test_a_convnext_block_keeps_its_planes(b):
    y = b("transpose", b.conv(b.x, 6, 3, 6, padding=(1, 1, 1, 1)), order=LAST)
    hidden = b.activation(b("linear", turned_norm(b, y), b.random(24, 6), b.random(24)), "gelu")
    out = b("multiply", b("linear", hidden, b.random(6, 24), b.random(6)), b.random(6))
    before = b.done(b("add", b("transpose", out, order=FIRST), b.x))
    after = optimize(before)
    assert_same_results(before, after)
    assert "transpose" not in ops(after) and "linear" not in ops(after)
    assert ops(after).count("conv2d") == 3
    assert {name for name, node in before.nodes.items() if node.op == "linear"} < set(after.nodes), "layers keep their names"
    assert after.nodes[after.outputs[0]].epilogue, "the residual addition is fused"


def test_parts_of_channels_last_values(b):
    y = b("transpose", b.x, order=LAST)
    parts = [b("slice", y, dimension=3, start=start, stop=start + 3) for start in (0, 3)]
    middle = b("transpose", b.conv(b("transpose", parts[0], order=FIRST), 3), order=LAST)
    before = b.done(b("transpose", b("concat", parts[1], middle, dimension=3), order=FIRST))
    after = optimize(before)
    assert_same_results(before, after)
    assert ops(after) == ["slice", "slice", "conv2d", "concat"]


@pytest.mark.parametrize("order", [LAST, FIRST, (3, 1, 2, 0), (1, 0, 3, 2)])
@pytest.mark.parametrize("op", ["add", "subtract", "divide", "maximum"])
def test_arithmetic_of_any_order(b, op, order):
    y = b("transpose", b.x, order=order)
    shape = b.shape(y)
    results = [b(op, y, b.positive(*thin)) for thin in ((), (1,), shape[-1:], (shape[1], 1, 1), shape)]
    both = b(op, y, b("transpose", b.activation(b.x, "exp"), order=order))
    before = b.done(*results, both)
    after = sink_transposes(before)
    assert_same_results(before, after)
    assert all(after.nodes[name].op == "transpose" for name in after.outputs)


def test_what_must_stay_stays(b):
    y = b("transpose", b.x, order=LAST)
    other = b("transpose", b.input(4, 2, 5, 6), order=(1, 0, 2, 3))
    before = b.done(
        b("add", y, other), b("mean", y, dimensions=(1, 2)), b("softmax", y, dimension=1), b("add", y, b.input(6)),
        b("linear", b("transpose", b.x, order=(0, 3, 2, 1)), b.random(3, 6)), b("add", y, b.random(1, 1, 1, 1, 6)))
    after = sink_transposes(before)
    assert_same_results(before, after)
    assert {node.op for node in after} == {node.op for node in before}
    assert all(np.array_equal(after.constants[name], array) for name, array in before.constants.items() if name in after.constants)
