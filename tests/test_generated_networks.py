"""Generated networks, compiled whole, equal the float64 reference: operators in any form, order and company."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_networks import OperatorGenerator

from zellige.cpu.lower.lowering import Options
from zellige.engine import build_engine
from zellige.graph.ir import Graph
from zellige.graph.reference import run_reference
from zellige.passes.pipeline import optimize

TOLERANCE = 1e-5
"""Relative to the largest value of an output. Sums have at most some hundred terms, and about ten motifs follow one another."""
LEAST = 0.1
"""Inputs and weights are of magnitude one: what is smaller than this is a difference of equal numbers, judged by these."""
MORE = settings(max_examples=8 * settings().max_examples)
"""A network takes some twenty milliseconds."""


def assert_compiled_right(graph: Graph, tolerance: float = TOLERANCE, **options: object) -> None:
    numbers = np.random.default_rng(1)
    inputs = [numbers.standard_normal(kind.shape).astype(np.float32) for kind in graph.inputs.values()]
    expected = run_reference(graph, inputs)
    got = build_engine(optimize(graph), Options(**options), threads=2)(*inputs)
    assert len(got) == len(expected)
    for name, ours, right in zip(graph.outputs, got, expected, strict=True):
        assert ours.shape == right.shape
        largest = max(float(np.abs(right).max()), LEAST)
        error = float(np.abs(ours - right).max()) / largest
        assert error <= tolerance, f"{name}: off by {error:.2g} of {largest:.3g} in\n{graph}"


@MORE
@given(seed=st.integers(0, 2**20), length=st.integers(1, 12))
def test_small_networks(seed, length):
    assert_compiled_right(OperatorGenerator(seed).network(length))


@given(seed=st.integers(0, 2**20), winograd=st.booleans())
def test_wider_networks(seed, winograd):
    """Several bands, blocks and tiles a layer, some of them zero; sums have up to some thousand terms."""
    graph = OperatorGenerator(seed, channels=(16, 24, 33), sizes=(9, 20, 34)).network(6)
    assert_compiled_right(graph, 4 * TOLERANCE, winograd=winograd)


@pytest.mark.full
@settings(max_examples=40 * settings().max_examples)
@given(seed=st.integers(0, 2**30), length=st.integers(1, 25))
def test_many_networks(seed, length):
    assert_compiled_right(OperatorGenerator(seed).network(length), tolerance=10 * TOLERANCE)
