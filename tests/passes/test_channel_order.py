"""The order of channels: whole bands vanish, the function stays, and what would gain nothing is left alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_networks import Build, Generator, assert_same_results

from zellige.graph.ir import Graph
from zellige.passes.channel_order import order_channels
from zellige.passes.pipeline import optimize
from zellige.passes.sparsity import band_columns, find_sparsity


def work(graph: Graph) -> int:
    """Weights that bands of 8 rows would multiply, over all layers, with the pixels that they meet."""
    total = 0
    for node in graph:
        if node.op in ("conv2d", "linear") and node.inputs[1] in graph.constants:
            axis = 1 if node.op == "conv2d" else len(node.type.shape) - 1
            kept = band_columns(graph.constants[node.inputs[1]], int(str(node.attributes.get("groups", 1)))).kept
            total += kept * node.type.elements // node.type.shape[axis]
    return total


def tile_wise(random: np.random.Generator, rows: int, columns: int, taps: int = 1, tile: int = 16) -> np.ndarray:
    """Half of the rows gone wherever they stand, and of every tile of those left half of the columns."""
    weight = random.standard_normal((rows, columns, taps, taps)) + 3
    live = np.sort(random.permutation(rows)[: rows // 2])
    for start in range(0, len(live), tile):
        gone = random.permutation(columns)[: columns // 2]
        weight[live[start:start + tile, None], gone] = 0
    weight[np.setdiff1d(np.arange(rows), live)] = 0
    return weight


def chain(*weights: np.ndarray, groups: int = 1) -> Graph:
    b = Build(1, weights[0].shape[1], 6, 6)
    x = b.x
    for weight in weights:
        kernel = weight.shape[2]
        x = b.activation(b("conv2d", x, b.constant(weight), b.random(len(weight)), padding=(kernel // 2,) * 4), "relu")
    return optimize_without_order(b.done(x))


def optimize_without_order(graph: Graph) -> Graph:
    found = []
    optimize(graph, observe=lambda name, after: found.append((name, after)))
    assert found[-1][0] == "channel_order"
    return found[-2][1]


def test_scattered_rows_come_together() -> None:
    random = np.random.default_rng(0)
    graph = chain(tile_wise(random, 64, 24), tile_wise(random, 64, 64, 3), random.standard_normal((8, 64, 1, 1)))
    before = work(graph)
    after = order_channels(graph)
    assert_same_results(graph, after)
    ideal = sum(np.count_nonzero(constant) * 36 for name, constant in graph.constants.items() if constant.ndim == 4)
    assert work(after) == ideal < 0.6 * before


def test_the_pipeline_ends_with_it() -> None:
    random = np.random.default_rng(0)
    b = Build(1, 24, 6, 6)
    first = b.activation(b("conv2d", b.x, b.constant(tile_wise(random, 64, 24)), b.random(64)), "relu")
    graph = b.done(b.conv(first, 8))
    assert_same_results(graph, optimize(graph))
    assert work(optimize(graph)) < work(optimize_without_order(graph))


def test_residual_branches_share_one_order() -> None:
    random = np.random.default_rng(1)
    b = Build(1, 24, 6, 6)
    left, right = (b("conv2d", b.x, b.constant(tile_wise(random, 64, 24)), b.random(64)) for _ in range(2))
    right = b.activation(right, "silu")
    graph = optimize_without_order(b.done(b.conv(b.activation(b("add", b.activation(left, "silu"), right), "relu"), 8)))
    after = order_channels(graph)
    assert_same_results(graph, after)
    assert work(after) < 0.9 * work(graph)


@pytest.mark.parametrize("kind", ["dense", "blocks"])
def test_what_would_gain_nothing_is_left_alone(kind: str) -> None:
    random = np.random.default_rng(2)
    weight = random.standard_normal((64, 32, 1, 1)) + 3
    if kind == "blocks":
        weight *= np.kron(random.random((8, 4)) < 0.5, np.ones((8, 8)))[:, :, None, None]
    graph = chain(weight, random.standard_normal((8, 64, 1, 1)))
    assert order_channels(graph) is graph


def test_channels_that_are_outputs_stay() -> None:
    graph = chain(tile_wise(np.random.default_rng(3), 64, 24))
    assert order_channels(graph) is graph


def test_runs_of_columns_are_not_broken_for_less() -> None:
    """Where lanes run over rows, weights are read in runs of 8 columns: an order that breaks more than it saves is not taken."""
    random = np.random.default_rng(4)
    first = random.standard_normal((64, 16)) + 3
    first[random.permutation(64)[:8]] = 0
    second = random.standard_normal((1024, 64)) * np.kron(random.random((128, 8)) < 0.5, np.ones((8, 8)))
    b = Build(1, 16)
    hidden = b.activation(b("linear", b.x, b.constant(first)), "relu")
    graph = optimize_without_order(b.done(b("linear", hidden, b.constant(second))))
    assert order_channels(graph) is graph
    wide = second * 0 + 1.0 + random.random(second.shape)
    b = Build(1, 16)
    hidden = b.activation(b("linear", b.x, b.constant(first)), "relu")
    graph = optimize_without_order(b.done(b("linear", hidden, b.constant(wide))))
    assert_same_results(graph, order_channels(graph))
    assert work(order_channels(graph)) < work(graph)


@given(seed=st.integers(0, 10_000), length=st.integers(3, 12))
def test_generated_networks_give_the_same_and_are_never_worse(seed: int, length: int) -> None:
    """Rows of every weight gone at random."""
    graph = Generator(seed).network(length)
    random = np.random.default_rng(seed)
    for constant in graph.constants.values():
        if constant.ndim in (2, 4) and len(constant) > 1:
            constant[random.random(len(constant)) < 0.5] = 0
    graph = optimize_without_order(graph)
    after = order_channels(graph)
    assert_same_results(graph, after)
    assert after.nodes == graph.nodes
    assert work(after) <= work(graph)


def test_the_sparsity_that_is_found_counts_it() -> None:
    random = np.random.default_rng(5)
    graph = chain(tile_wise(random, 128, 64, tile=32), random.standard_normal((8, 128, 1, 1)))
    first = next(iter(graph.nodes))
    assert find_sparsity(graph)[first].columns > 0.45
    assert find_sparsity(order_channels(graph))[first].columns == pytest.approx(0.25)
