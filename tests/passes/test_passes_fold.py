"""Folding into convolutions and linears: where it happens, where it must not, and that pruned zeros stay zero."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_networks import Build, assert_same_results, ops

from zellige.errors import GraphError
from zellige.passes.fold import fold_affine


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("bias", [False, True])
def test_a_batch_norm_folds_into_the_convolution_before_it(groups, bias):
    b = Build(2, 4, 5, 5)
    conv = b.conv(b.x, 8, 3, groups, bias, padding=(1, 1, 1, 1))
    before = b.done(b.activation(b.norm(conv), "relu"))
    after = fold_affine(before)
    assert ops(after) == ["conv2d", "activation"]
    assert conv in after.nodes and len(after.constants) == 2
    assert before.nodes[conv].inputs[1] in after.constants          # the weight keeps its name
    assert_same_results(before, after)


def test_the_folded_convolution_takes_the_place_of_a_norm_that_is_an_output():
    b = Build(2, 4, 5, 5)
    before = b.done(b.norm(b.conv(b.x, 4, name="conv")))
    after = fold_affine(before)
    assert (after.outputs, ops(after)) == (("conv",), ["conv2d"])
    assert_same_results(before, after)


@pytest.mark.parametrize("shape", [(3, 4), (3, 5, 4)])
def test_what_follows_a_linear_folds_along_its_last_dimension(shape):
    b = Build(*shape)
    linear = b("linear", b.x, b.random(6, 4))
    scaled = b("add", b("multiply", linear, b.random(6)), b.random(1, 6))
    before = b.done(b("multiply", scaled, b.constant(3.0)))
    after = fold_affine(before)
    assert ops(after) == ["linear"]
    assert_same_results(before, after)


def test_a_norm_over_another_dimension_than_the_linears_last_becomes_scale_shift():
    b = Build(3, 5, 4)
    before = b.done(b.norm(b("linear", b.x, b.random(6, 4))))
    after = fold_affine(before)
    assert ops(after) == ["linear", "scale_shift"]
    assert_same_results(before, after)


def test_a_norm_folds_only_where_it_alone_reads_the_convolution():
    b = Build(1, 4, 5, 5)
    shared, returned, computed = b.conv(b.x, 4), b.conv(b.x, 4), b.conv(b.x, 4)
    weight = b("reshape", b.x, shape=(100, 1, 1, 1))
    dynamic = b("conv2d", b("slice", b.x, dimension=1, start=0, stop=1), weight)
    before = b.done(b.norm(shared), b.activation(shared, "relu"), returned, b.norm(returned),
                    b.norm(b.activation(computed, "relu")), b.norm(dynamic))
    after = fold_affine(before)
    assert ops(after).count("scale_shift") == 4
    assert "batch_norm" not in ops(after)
    assert_same_results(before, after)


def test_weights_that_are_shared_fold_apart():
    b = Build(1, 4, 5, 5)
    weight, bias = b.random(4, 4, 1, 1), b.random(4)
    before = b.done(b.norm(b("conv2d", b.x, weight, bias)), b.norm(b("conv2d", b.x, weight, bias)),
                    b("conv2d", b.x, weight, bias))
    original = before.constants[weight].copy()
    after = fold_affine(before)
    assert ops(after) == ["conv2d"] * 3
    assert len({node.inputs[1:] for node in after}) == 3
    assert np.array_equal(before.constants[weight], original)
    assert_same_results(before, after)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("attributes", [{}, {"padding": (1, 0, 1, 2), "padding_mode": "reflect"}])
def test_a_norm_before_a_convolution_folds_where_no_padded_zero_is_shifted(groups, attributes):
    b = Build(2, 4, 5, 5)
    before = b.done(b.conv(b.norm(b.activation(b.x, "relu")), 8, 3, groups, **attributes))
    after = fold_affine(fold_affine(before))          # the norm becomes a scale_shift first
    assert ops(after) == ["activation", "conv2d"]
    assert_same_results(before, after)


def test_a_shift_before_padded_zeros_stays_and_a_scale_alone_folds():
    b = Build(2, 4, 5, 5)
    shifted = b("scale_shift", b.x, b.random(4), b.random(4))
    scaled = b("scale_shift", b.x, b.random(4), b.constant(np.zeros(4)))
    before = b.done(b.conv(shifted, 4, 3, padding=(0, 0, 0, 1)), b.conv(scaled, 4, 3, padding=(0, 0, 0, 1)))
    after = fold_affine(before)
    assert ops(after) == ["scale_shift", "conv2d", "conv2d"]
    assert_same_results(before, after)


def test_a_step_that_others_read_is_not_folded_into_the_convolution_after_it():
    b = Build(2, 4, 5, 5)
    step = b("scale_shift", b.x, b.random(4), b.random(4))
    before = b.done(b.conv(step, 4), b.activation(step, "relu"))
    assert fold_affine(before).nodes == before.nodes


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 4]), st.booleans())
def test_pruned_zeros_stay_exactly_zero(seed, groups, norm_first):
    b = Build(1, 8, 4, 4, seed=seed, dtype="float32")
    conv = b.conv(b.norm(b.x) if norm_first else b.x, 16, 3, groups)
    before = b.done(b.norm(conv))
    weight = before.nodes[conv].inputs[1]
    mask = b.numbers.random((16, 8 // groups, 1, 1)) < 0.5
    before.constants[weight] = before.constants[weight] * mask
    after = fold_affine(fold_affine(before))
    assert ops(after) == ["conv2d"]
    folded = after.constants[after.nodes[conv].inputs[1]]
    assert np.array_equal(folded != 0, before.constants[weight] != 0)
    assert folded.dtype == np.float32


@pytest.mark.parametrize("spoil", [
    lambda norm: norm["variance"].__setitem__(1, -1.0), lambda norm: norm["weight"].__setitem__(0, np.nan),
    lambda norm: norm["bias"].__setitem__(2, np.inf), lambda norm: norm["weight"].__setitem__(0, 3e38)])
@pytest.mark.parametrize("alone", [False, True])
def test_parameters_that_are_not_finite_are_refused_by_name(spoil, alone):
    b = Build(1, 4, 5, 5, dtype="float32")
    before = b.done(b.norm(b.x if alone else b.conv(b.x, 4, name="layer")))
    (norm,) = (node for node in before if node.op == "batch_norm")
    before.constants[norm.inputs[4]][:] = 1e-4
    spoil(dict(zip(("weight", "bias", "mean", "variance"), map(before.constants.get, norm.inputs[1:]), strict=True)))
    with pytest.raises(GraphError, match=rf"{norm.name} .*net\.part.*not finite in float32"):
        fold_affine(before)


def test_statistics_that_the_network_computes_are_refused():
    b = Build(4, 4, 5, 5)
    mean = b("mean", b.x, dimensions=(0, 2, 3))
    before = b.done(b("batch_norm", b.x, b.positive(4), b.random(4), mean, b.positive(4)))
    with pytest.raises(GraphError, match="eval mode"):
        fold_affine(before)
