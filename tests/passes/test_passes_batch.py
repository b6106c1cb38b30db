"""Batches in parts: a network that is separable gives the same numbers image by image; one that mixes its images is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from operator_networks import OperatorGenerator
from small_networks import Build, Generator

from zellige.errors import GraphError
from zellige.graph.ir import Graph
from zellige.graph.operators import OPERATORS
from zellige.graph.reference import run_reference
from zellige.passes.batch import RULES, batch_of, with_batch
from zellige.passes.pipeline import optimize


def image_by_image(graph: Graph, inputs: list[np.ndarray], part: int) -> list[np.ndarray]:
    """The graph for ``part`` images, run in float64 on one part of the batch after another."""
    fewer = with_batch(graph, part)
    images = len(inputs[0])
    runs = [run_reference(fewer, [array[start:start + part] for array in inputs]) for start in range(0, images, part)]
    return [np.concatenate(results) for results in zip(*runs, strict=True)]


def depends_on_others(graph: Graph) -> bool:
    """Whether a change of one image changes any other's results: what no separable network does."""
    numbers = np.random.default_rng(3)
    inputs = [numbers.standard_normal(kind.shape) for kind in graph.inputs.values()]
    changed = [array.copy() for array in inputs]
    for array in changed:
        array[0] += 1
    pairs = zip(run_reference(graph, inputs), run_reference(graph, changed), strict=True)
    return any(not np.array_equal(one[1:], other[1:], equal_nan=True) for one, other in pairs)


@given(seed=st.integers(0, 10_000), kind=st.sampled_from([Generator, OperatorGenerator]), optimised=st.booleans())
def test_what_is_separable_gives_the_same_numbers_in_parts(seed, kind, optimised):
    graph = kind(seed).network(6)
    graph = optimize(graph) if optimised else graph
    images = batch_of(graph)
    if images == 1:
        with pytest.raises(GraphError, match="one by one"):
            with_batch(graph, 1)
        return
    assert not depends_on_others(graph)
    numbers = np.random.default_rng(1)
    inputs = [numbers.standard_normal(kind.shape) for kind in graph.inputs.values()]
    for one, other in zip(image_by_image(graph, inputs, 1), run_reference(graph, inputs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9 * max(1.0, float(np.abs(other).max())))


def test_most_networks_of_convolutions_are_separable():
    graphs = [Generator(seed).network(6) for seed in range(60)]
    several = [graph for graph in graphs if next(iter(graph.inputs.values())).shape[0] > 1]
    assert len(several) > 20 and sum(batch_of(graph) > 1 for graph in several) > len(several) / 2


def test_every_operator_has_a_rule():
    assert set(RULES) == set(OPERATORS)


def plain(b: Build) -> str:
    return b.activation(b.conv(b.x, 4, 3), "relu")


SEPARABLE = {
    "convolution": plain,
    "residual": lambda b: b("add", b.x, b.activation(b.x, "relu")),
    "scalar": lambda b: b("multiply", b.x, b.constant(2.0)),
    "constant of one image": lambda b: b("add", b.x, b.random(1, 4, 6, 6)),
    "constant of fewer dimensions": lambda b: b("add", b.x, b.random(4, 1, 1)),
    "rows": lambda b: b("linear", b("reshape", b.x, shape=(6, 144)), b.random(5, 144)),
    "regrouped": lambda b: b("reshape", b.x, shape=(6, 2, 2, 36)),
    "turned": lambda b: b("transpose", b.x, order=(0, 3, 1, 2)),
    "softmax": lambda b: b("softmax", b.x, dimension=1),
    "mean": lambda b: b("mean", b.x, dimensions=(1, 2, 3), keep=False),
    "joined": lambda b: b("concat", b.x, b.x, dimension=1),
    "two inputs": lambda b: b("add", b.x, b.input(6, 4, 6, 6)),
}

MIXED = {
    "sum over images": lambda b: b("sum", b.x, dimensions=(0,), keep=True),
    "mean over all": lambda b: b("mean", b.x, dimensions=(0, 1), keep=False),
    "softmax over images": lambda b: b("softmax", b.x, dimension=0),
    "joined images": lambda b: b("concat", b.x, b.x, dimension=0),
    "some images": lambda b: b("slice", b.x, dimension=0, start=0, stop=3),
    "all images": lambda b: b("slice", b.x, dimension=0, start=0, stop=6),
    "images as rows": lambda b: b("transpose", b.x, order=(2, 1, 0, 3)),
    "images beside channels": lambda b: b("reshape", b.x, shape=(1, 24, 6, 6)),
    "images turned into rows and back": lambda b: b("reshape", b("transpose", b.x, order=(2, 1, 0, 3)), shape=(6, 4, 6, 6)),
    "a constant for each image": lambda b: b("add", b.x, b.random(6, 1, 1, 1)),
    "a constant with more dimensions": lambda b: b("add", b.x, b.random(6, 1, 1, 1, 1)),
    "images meet rows": lambda b: b("add", b.x, b("mean", b.x, dimensions=(1, 3), keep=False)),
    "images meet columns": lambda b: b("add", b.x, b("mean", b.x, dimensions=(1, 2, 3), keep=False)),
    "a layer over images": lambda b: b("linear", b("mean", b.x, dimensions=(1, 2, 3), keep=False), b.random(6, 6)),
    "constants alone": lambda b: b("add", b.random(6, 2), b.random(6, 2)),
    "a constant's softmax": lambda b: b("softmax", b.random(6, 2), dimension=1),
    "a joined constant": lambda b: b("concat", b.x, b.random(6, 1, 6, 6), dimension=1),
    "another number of images": lambda b: b("add", b.x, b.input(1, 4, 6, 6)),
    "computed slopes": lambda b: b("prelu", b.x, b("slice", b("mean", b.x, dimensions=(1, 2, 3), keep=False), dimension=0, start=0,
                                                   stop=4)),
}


@pytest.mark.parametrize("name", SEPARABLE)
def test_separable(name):
    b = Build(6, 4, 6, 6)
    graph = b.done(SEPARABLE[name](b))
    assert batch_of(graph) == 6
    inputs = [np.random.default_rng(2).standard_normal(kind.shape) for kind in graph.inputs.values()]
    for part in (1, 2, 3):
        for one, other in zip(image_by_image(graph, inputs, part), run_reference(graph, inputs), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MIXED)
def test_mixed(name):
    b = Build(6, 4, 6, 6)
    graph = b.done(plain(b), MIXED[name](b))
    assert batch_of(graph) == 1
    with pytest.raises(GraphError, match="graph small: expected a network that treats the images of its batch one by one"):
        with_batch(graph, 2)


def test_a_sum_in_an_epilogue_with_a_constant_for_each_image():
    b = Build(6, 4, 6, 6)
    y = b("add", b.conv(b.x, 4), b.random(6, 4, 6, 6))
    graph = optimize(b.done(y))
    assert graph.nodes[graph.outputs[0]].epilogue and batch_of(graph) == 1


def test_weights_are_shared_and_the_graph_stays():
    b = Build(6, 4, 6, 6)
    graph = b.done(SEPARABLE["rows"](b))
    before = str(graph)
    fewer = with_batch(graph, 2)
    assert fewer.constants is graph.constants and str(graph) == before
    assert [kind.shape for kind in fewer.inputs.values()] == [(2, 4, 6, 6)]
    assert fewer.nodes[fewer.outputs[0]].type.shape == (2, 5)
