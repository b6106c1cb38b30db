"""Sums of two convolutions: which become one, what it is called, and that its sources are joined without a copy."""

from collections import Counter

import numpy as np
import pytest
from engine_checks import assert_holds, assert_writes_inside
from hypothesis import given
from hypothesis import strategies as st
from small_networks import Build, assert_same_results, ops

from zellige.cpu.kernels.copy import CopyKernel
from zellige.passes.pipeline import optimize
from zellige.passes.sparsity import find_sparsity
from zellige.passes.sums import merge_sums


def block(b, x, inner=8, outer=16, stride=1, bias=(True, True), swap=False, name="block"):
    """The end of a residual block that changes its width: relu(conv3(h) + downsample(x))."""
    h = b.activation(b.conv(x, inner, 3, stride=(stride, stride), padding=(1, 1, 1, 1)), "tanh")
    terms = (b.conv(h, outer, bias=bias[0], name=f"{name}.conv3"),
             b.conv(x, outer, bias=bias[1], stride=(stride, stride), name=f"{name}.downsample.0"))
    return b.activation(b("add", *(terms[::-1] if swap else terms)), "relu")


def start(b):
    """A map that a node of the network makes."""
    return b.activation(b.x, "tanh", name="start")


@given(st.integers(1, 3), st.tuples(st.booleans(), st.booleans()), st.booleans(), st.integers(1, 2))
def test_a_sum_of_two_convolutions_becomes_one(stride, bias, swap, images):
    b = Build(images, 4, 7, 6)
    before = b.done(block(b, start(b), stride=stride, bias=bias, swap=swap))
    after = optimize(before)
    pool = {"max_pool2d": 1} if stride > 1 else {}
    assert Counter(ops(after)) == {"activation": 1, "conv2d": 2, "concat": 1, **pool}
    merged = after.nodes["block.downsample.0+conv3" if swap else "block.conv3+downsample.0"]
    assert [str(step) for step in merged.epilogue] == ["relu"]
    assert after.type_of(merged.inputs[1]).shape == (16, 12, 1, 1)
    assert len(merged.inputs) == 2 + any(bias)
    assert merged.name in after.outputs
    assert stride == 1 or list(after.nodes)[:2] == ["start", "block.downsample.0.source"]
    assert_same_results(before, after)


def test_blocks_behind_one_another_are_merged_each():
    b = Build(1, 4, 9, 9)
    second = block(b, block(b, start(b), name="layer1.0"), 8, 24, stride=2, name="layer2.0")
    before = b.done(block(b, second, 4, 32, name="layer3.0"))
    after = optimize(before)
    assert [name for name in after.nodes if "+" in name and name.endswith(".0")] == [
        f"layer{number}.0.conv3+downsample.0" for number in (1, 2, 3)]
    assert Counter(ops(after)) == {"activation": 1, "conv2d": 6, "concat": 3, "max_pool2d": 1}
    assert_same_results(before, after)


def test_blocks_of_zeros_stay_blocks_of_zeros():
    b = Build(1, 16, 6, 6)
    before = b.done(block(b, start(b), inner=24, outer=32))
    masks = []
    for name in ("block.conv3", "block.downsample.0"):
        weight = before.constants[before.nodes[name].inputs[1]]
        masks.append(b.numbers.random((weight.shape[0] // 8, weight.shape[1] // 8)) < 0.5)
        weight *= np.kron(masks[-1], np.ones((8, 8)))[..., None, None]
    found = find_sparsity(optimize(before))["block.conv3+downsample.0"]
    assert found.pattern == "8x8 blocks"
    assert found.blocks == found.elements == pytest.approx(np.concatenate(masks, axis=1).mean())


APART = {
    "a larger filter": lambda b, x, h: (b.conv(h, 8, 3, padding=(1, 1, 1, 1)), b.conv(x, 8)),
    "groups": lambda b, x, h: (b.conv(h, 8, groups=2), b.conv(x, 8)),
    "padding": lambda b, x, h: (b.conv(h, 8, padding=(1, 0, 0, 1), stride=(4, 4)), b.conv(x, 8, stride=(4, 4))),
    "the shortcut is the identity": lambda b, x, h: (b.conv(h, 4), x),
    "an activation between": lambda b, x, h: (b.activation(b.conv(h, 8), "relu"), b.conv(x, 8)),
    "one source": lambda b, x, h: (b.conv(x, 8), b.conv(x, 8)),
    "one pixel is added to all": lambda b, x, h: (b.conv(h, 8), b.conv(b("mean", x, dimensions=(2, 3), keep=True), 8)),
    "no map": lambda b, x, h: tuple(b.conv(b("mean", one, dimensions=(2, 3), keep=True), 8) for one in (h, x)),
    "the network's input": lambda b, x, h: (b.conv(h, 8), b.conv(b.x, 8)),
    "the network's input at a stride": lambda b, x, h: (b.conv(h, 8, stride=(2, 2)), b.conv(b.x, 8, stride=(2, 2))),
    "a slice": lambda b, x, h: (b.conv(h, 8), b.conv(b("slice", x, dimension=1, start=1, stop=4, step=1), 8)),
}


@pytest.mark.parametrize("case", APART)
def test_other_sums_stay_apart(case):
    b = Build(1, 4, 6, 6)
    x = start(b)
    before = b.done(b("add", *APART[case](b, x, b.activation(b.conv(x, 4), "sigmoid"))))
    assert merge_sums(before) == before


def test_a_convolution_that_others_read_too_stays():
    b = Build(1, 4, 6, 6)
    x = start(b)
    one, other = b.conv(b.activation(x, "sigmoid"), 8), b.conv(x, 8)
    total = b("add", one, other)
    for outputs in ((total, one), (total, b.activation(other, "relu"))):
        before = b.done(*outputs)
        assert merge_sums(before) == before


def test_a_source_is_part_of_one_value_only():
    b = Build(1, 4, 6, 6)
    x = start(b)
    sums = [b("add", b.conv(b.activation(x, function), 8), b.conv(x, 8)) for function in ("sigmoid", "relu")]
    before = b.done(*sums)
    after = merge_sums(before)
    assert Counter(ops(after))["concat"] == 1 and Counter(ops(after))["add"] == 1
    assert_same_results(before, after)
    before = b.done(b("concat", x, b.activation(x, "silu"), dimension=1), sums[0])
    assert "add" in ops(merge_sums(before))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [7, 14, 33])
def test_both_sources_are_written_side_by_side(stride, size):
    b = Build(1, 8, size, size, dtype="float32")
    x = b.activation(b.conv(b.x, 24, 3, padding=(1, 1, 1, 1)), "relu")
    before = b.done(block(b, x, 16, 40, stride))
    for array in before.constants.values():
        array *= 0.3
    engine = assert_holds(before)
    rows = {row.name: row for row in engine.layers}
    assert rows["block.conv3+downsample.0.source"].reason == "all parts written in place"
    copies = [call.label for call in engine._program.plan.calls if isinstance(call.kernel, CopyKernel)]
    assert not [label for label in copies if label.startswith("block.")]
    assert_writes_inside(before)
