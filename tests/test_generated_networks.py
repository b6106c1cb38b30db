"""Generated networks, compiled whole, equal the float64 reference: operators in any form, order and company."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_networks import OperatorGenerator

from zellige.cpu import host
from zellige.cpu.isa import ISAS
from zellige.cpu.lower.lowering import Options
from zellige.engine import build_engine, load
from zellige.graph.ir import Graph
from zellige.graph.reference import run_reference
from zellige.passes.pipeline import optimize

TOLERANCE = 1e-5
"""Relative to the largest value of an output. Sums have at most some hundred terms, and about ten motifs follow one another."""
LEAST = 0.1
"""Inputs and weights are of magnitude one: what is smaller than this is a difference of equal numbers, judged by these."""
MORE = settings(max_examples=8 * settings().max_examples)
"""A network takes some twenty milliseconds."""


def inputs_for(graph: Graph) -> list[np.ndarray]:
    numbers = np.random.default_rng(1)
    return [numbers.standard_normal(kind.shape).astype(np.float32) for kind in graph.inputs.values()]


def assert_compiled_right(graph: Graph, tolerance: float = TOLERANCE, target: str = "cpu", **options: object) -> None:
    inputs = inputs_for(graph)
    expected = run_reference(graph, inputs)
    got = build_engine(optimize(graph), Options(**options), target, threads=2)(*inputs)
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


@pytest.mark.skipif(not host.runs_here(ISAS["x86-64-v3"]), reason="needs a CPU with AVX2")
@given(seed=st.integers(0, 2**20), length=st.integers(1, 12))
def test_vectors_of_eight(seed, length):
    assert_compiled_right(OperatorGenerator(seed).network(length), target="cpu:x86-64-v3")


@given(seed=st.integers(0, 2**20))
def test_threads_clones_and_files_change_no_bit(seed, tmp_path_factory):
    graph = optimize(OperatorGenerator(seed, channels=(4, 24), sizes=(6, 17)).network(8))
    inputs = inputs_for(graph)
    engine = build_engine(graph, Options(), threads=2)
    expected = engine(*inputs)
    path = tmp_path_factory.mktemp("network") / "network.zlg"
    engine.save(path)
    more, fewer = (build_engine(graph, Options(), threads=threads) for threads in (5, 1))
    for other in (more, fewer, engine.clone(), load(path, threads=2)):
        for _ in range(2):
            assert all(map(np.array_equal, other(*inputs), expected))


@pytest.mark.full
@settings(max_examples=10 * settings().max_examples)
@given(seed=st.integers(0, 2**30), length=st.integers(1, 25))
def test_many_networks(seed, length):
    assert_compiled_right(OperatorGenerator(seed).network(length), tolerance=10 * TOLERANCE)
