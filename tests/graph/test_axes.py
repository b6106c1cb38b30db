"""Axis groups: which channels may change places, on small graphs of every kind, and that a permutation changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_networks import Build, Generator

from zellige.graph.axes import Axes, AxisGroup, find_axes, permute_graph
from zellige.graph.ir import Graph
from zellige.graph.reference import run_reference
from zellige.graph.verify import verify_graph
from zellige.passes.pipeline import optimize

ROUNDING = 1e-12
"""Relative to the largest output, in float64: sums of at most some hundred numbers in another order."""


def random_orders(axes: Axes, seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.permutation(group.units) for group in axes.groups]


def assert_nothing_changes(graph: Graph, axes: Axes, seed: int = 0) -> None:
    """Any permutation of the groups leaves the results as they are, and every node too."""
    permuted = permute_graph(graph, axes, random_orders(axes, seed))
    verify_graph(permuted)
    assert permuted.nodes == graph.nodes
    random = np.random.default_rng(seed + 1)
    inputs = [random.standard_normal(kind.shape) for kind in graph.inputs.values()]
    for before, after in zip(run_reference(graph, inputs), run_reference(permuted, inputs), strict=True):
        np.testing.assert_allclose(after, before, rtol=0, atol=ROUNDING * max(1.0, float(np.nanmax(np.abs(before), initial=0))))


def group_with(axes: Axes, constant: str, *dims: int) -> list[AxisGroup]:
    return [group for group in axes.groups if any(part.constant == constant and part.dims == dims for part in group.parts)]


def parts(group: AxisGroup) -> set[tuple[str, tuple[int, ...]]]:
    return {(part.constant, part.dims) for part in group.parts}


def sizes(axes: Axes) -> list[int]:
    return sorted(group.units for group in axes.groups)


def reasons(axes: Axes) -> str:
    return "\n".join(lines.reason for lines in axes.fixed)


def checked(graph: Graph) -> Axes:
    axes = find_axes(graph)
    for seed in range(3):
        assert_nothing_changes(graph, axes, seed)
    return axes


def test_a_chain_shares_rows_norm_and_columns() -> None:
    b = Build(1, 3, 5, 5)
    first, bias, second = b.random(6, 3, 3, 3), b.random(6), b.random(4, 6, 1, 1)
    x = b("conv2d", b.x, first, bias)
    norm = [b.positive(6), b.random(6), b.random(6), b.positive(6)]
    x = b.activation(b("batch_norm", x, *norm), "relu")
    axes = checked(b.done(b("conv2d", x, second)))
    (group,) = axes.groups
    assert group.units == 6
    assert parts(group) == {(first, (0,)), (second, (1,)), *((vector, (0,)) for vector in (bias, *norm))}
    assert [(lines.constant, lines.axis, lines.lines, lines.of) for lines in axes.fixed] == [(first, 1, 3, 3), (second, 0, 4, 4)]
    assert "an input of the network" in axes.fixed[0].reason and axes.fixed[1].reason == "an output of the network"


def test_a_residual_branch_ties_all_that_meet() -> None:
    b = Build(1, 3, 4, 4)
    stem, one, two, shortcut, last = (b.random(*shape, 1, 1) for shape in ((6, 3), (8, 6), (6, 8), (6, 6), (2, 6)))
    x = b.activation(b("conv2d", b.x, stem), "relu")
    inner = b.activation(b("conv2d", x, one), "relu")
    x = b("add", b("conv2d", inner, two), x)
    x = b("add", b("conv2d", x, shortcut), x)
    axes = checked(b.done(b("conv2d", x, last)))
    assert sizes(axes) == [6, 8]
    (stream,) = group_with(axes, stem, 0)
    assert parts(stream) == {(stem, (0,)), (one, (1,)), (two, (0,)), (shortcut, (0,)), (shortcut, (1,)), (last, (1,))}


def test_an_addition_of_the_input_holds_channels() -> None:
    b = Build(1, 4, 3, 3)
    x = b("add", b.conv(b.x, 4), b.x)
    axes = checked(b.done(b.conv(x, 2)))
    assert not axes.groups
    assert "meets x0, which has no channels that could move along" in reasons(axes)


def test_parts_of_a_concatenation_stay_apart() -> None:
    b = Build(1, 3, 4, 4)
    left, right, last = b.random(4, 3, 1, 1), b.random(6, 3, 1, 1), b.random(2, 13, 1, 1)
    joined = b("concat", b("conv2d", b.x, left), b("conv2d", b.x, right), b.x, dimension=1)
    axes = checked(b.done(b("conv2d", joined, last)))
    assert sizes(axes) == [4, 6]
    (group,) = group_with(axes, right, 0)
    columns = next(part for part in group.parts if part.constant == last)
    assert sorted(columns.positions.ravel()) == list(range(4, 10))
    assert any(lines.constant == last and lines.axis == 1 and lines.lines == 3 for lines in axes.fixed)


def test_one_value_joined_twice_moves_in_both_places() -> None:
    b = Build(1, 3, 4, 4)
    last = b.random(2, 10, 1, 1)
    x = b.conv(b.x, 5)
    axes = checked(b.done(b("conv2d", b("concat", x, x, dimension=1), last)))
    (group,) = axes.groups
    columns = next(part for part in group.parts if part.constant == last)
    assert columns.positions.tolist() == [[at, at + 5] for at in range(5)]


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_filters_follow_their_channel(multiplier: int) -> None:
    b = Build(1, 3, 6, 6)
    stem, depthwise, last = b.random(5, 3, 1, 1), b.random(5 * multiplier, 1, 3, 3), b.random(2, 5 * multiplier, 1, 1)
    x = b("conv2d", b("conv2d", b.x, stem), depthwise, b.random(5 * multiplier), groups=5)
    axes = checked(b.done(b("conv2d", x, last)))
    (group,) = axes.groups
    assert group.units == 5
    assert {(stem, (0,)), (depthwise, (0,)), (last, (1,))} < parts(group)
    assert next(part for part in group.parts if part.constant == depthwise).positions.shape == (5, multiplier)


def test_grouped_convolutions_let_channels_move_within_their_group() -> None:
    b = Build(1, 3, 4, 4)
    stem, grouped, last = b.random(8, 3, 1, 1), b.random(6, 4, 3, 3), b.random(2, 6, 1, 1)
    x = b("conv2d", b("conv2d", b.x, stem), grouped, groups=2, padding=(1, 1, 1, 1))
    axes = checked(b.done(b("conv2d", x, last)))
    assert sizes(axes) == [3, 3, 4, 4]
    for group in group_with(axes, stem, 0):
        rows = next(part for part in group.parts if part.constant == stem).positions.ravel()
        assert len(set(rows // 4)) == 1
        assert parts(group) == {(stem, (0,)), (grouped, (0, 1))}


def test_a_channel_behind_a_flatten_takes_all_its_pixels_along() -> None:
    b = Build(1, 3, 4, 5)
    stem, classifier = b.random(6, 3, 1, 1), b.random(7, 6 * 20)
    flat = b("reshape", b.activation(b("conv2d", b.x, stem), "relu"), shape=(1, 120))
    axes = checked(b.done(b("linear", flat, classifier)))
    (group,) = axes.groups
    columns = next(part for part in group.parts if part.constant == classifier)
    assert columns.positions.tolist() == np.arange(120).reshape(6, 20).tolist()


def test_a_flatten_with_channels_last_takes_every_so_manieth_column() -> None:
    b = Build(1, 3, 2, 2)
    classifier = b.random(7, 6 * 4)
    last = b("transpose", b.conv(b.x, 6), order=(0, 2, 3, 1))
    axes = checked(b.done(b("linear", b("reshape", last, shape=(1, 24)), classifier)))
    columns = next(part for part in axes.groups[0].parts if part.constant == classifier)
    assert columns.positions.tolist() == np.arange(24).reshape(4, 6).T.tolist()


def test_a_flatten_and_its_undoing_leave_channels_as_they_were() -> None:
    b = Build(1, 3, 2, 2)
    x = b.conv(b.x, 6)
    back = b("reshape", b("reshape", x, shape=(1, 24)), shape=(1, 6, 2, 2))
    assert sizes(checked(b.done(b.conv(b("add", back, x), 2)))) == [6]


def layer_norm(b: Build, x: str, dim: int) -> str:
    """As the way in from PyTorch writes it."""
    features = b.shape(x)[dim]
    centred = b("subtract", x, b("mean", x, dimensions=(dim,), keep=True))
    spread = b("mean", b.activation(centred, "square"), dimensions=(dim,), keep=True)
    normal = b("multiply", centred, b.activation(b("add", spread, b.constant(1e-5)), "rsqrt"))
    return b("add", b("multiply", normal, b.positive(features)), b.random(features))


def test_layer_norms_move_along() -> None:
    b = Build(2, 5, 3)
    x = b("linear", b.x, b.random(6, 3))
    hidden = b.activation(b("linear", layer_norm(b, x, 2), b.random(8, 6)), "gelu")
    x = b("add", x, b("linear", hidden, b.random(6, 8)))
    axes = checked(b.done(b("linear", layer_norm(b, x, 2), b.random(4, 6))))
    assert sizes(axes) == [6, 8]
    assert len(next(group for group in axes.groups if group.units == 6).parts) == 8


def test_group_norms_hold_channels_within_their_group() -> None:
    b = Build(1, 3, 2, 2)
    x = b.conv(b.x, 6)
    grouped = b("reshape", x, shape=(1, 2, 12))
    flat = b("reshape", b("subtract", grouped, b("mean", grouped, dimensions=(2,), keep=True)), shape=(1, 6, 2, 2))
    assert sizes(checked(b.done(b.conv(b("multiply", flat, b.random(6, 1, 1)), 2)))) == [3, 3]


def test_squeeze_and_excitation_has_two_groups() -> None:
    b = Build(1, 3, 4, 4)
    x = b.conv(b.x, 6)
    gate = b.conv(b("mean", x, dimensions=(2, 3), keep=True), 4, bias=True)
    gate = b.activation(b.conv(b.activation(gate, "relu"), 6, bias=True), "sigmoid")
    axes = checked(b.done(b.conv(b("multiply", x, gate), 2)))
    assert sizes(axes) == [4, 6]


def test_channel_shuffles_are_followed() -> None:
    b = Build(1, 3, 4, 4)
    stem, grouped = b.random(8, 3, 1, 1), b.random(6, 4, 1, 1)
    shuffled = b("channel_shuffle", b("conv2d", b.x, stem), groups=2)
    axes = checked(b.done(b.conv(b("conv2d", shuffled, grouped, groups=2), 2)))
    assert sizes(axes) == [3, 3, 4, 4]
    rows = {tuple(sorted(next(part for part in group.parts if part.constant == stem).positions.ravel()))
            for group in group_with(axes, stem, 0)}
    assert rows == {(0, 1, 4, 5), (2, 3, 6, 7)}


def test_a_split_into_halves_that_gate_each_other_ties_them() -> None:
    b = Build(2, 3)
    made, last = b.random(10, 3), b.random(2, 5)
    x = b("linear", b.x, made)
    left, right = (b("slice", x, dimension=1, start=start, stop=start + 5) for start in (0, 5))
    axes = checked(b.done(b("linear", b("multiply", left, b.activation(right, "sigmoid")), last)))
    (group,) = axes.groups
    rows = next(part for part in group.parts if part.constant == made)
    assert rows.positions.tolist() == [[at, at + 5] for at in range(5)]


def test_halves_that_meet_crosswise_are_told_apart() -> None:
    """Units hold an output of either half each, but not in the same order: none can stand in for one of the other kind."""
    b = Build(2, 3)
    made = b.random(6, 3)
    x = b("linear", b.x, made)
    rows = {name: [b("slice", x, dimension=1, start=at, stop=at + 1) for at in places]
            for name, places in (("left", (0, 4, 2)), ("right", (3, 1, 5)))}
    left, right = (b("concat", *rows[name], dimension=1) for name in ("left", "right"))
    checked(b.done(b("linear", b("subtract", left, right), b.random(2, 3))))


def test_heads_keep_their_features() -> None:
    """Attention over positions by one query: features of queries and keys move together, and within their head."""
    b = Build(1, 7, 6)
    heads, features = 2, 4
    query, key, value = (b.random(heads * features, 6) for _ in range(3))
    split = {name: b("reshape", b("linear", b.x, weight), shape=(1, 7, heads, features))
             for name, weight in (("q", query), ("k", key), ("v", value))}
    first = b("slice", split["q"], dimension=1, start=0, stop=1)
    scores = b("softmax", b("sum", b("multiply", first, split["k"]), dimensions=(3,), keep=True), dimension=1)
    mixed = b("sum", b("multiply", split["v"], scores), dimensions=(1,), keep=False)
    out = b.random(3, heads * features)
    axes = checked(b.done(b("linear", b("reshape", mixed, shape=(1, heads * features)), out)))
    assert sizes(axes) == [4, 4, 4, 4]
    for group in group_with(axes, query, 0):
        rows = next(part for part in group.parts if part.constant == query).positions.ravel()
        assert len(set(rows // features)) == 1
        assert parts(group) == {(query, (0,)), (key, (0,))}
    assert {frozenset(parts(group)) for group in group_with(axes, value, 0)} == {frozenset({(value, (0,)), (out, (1,))})}


def test_tokens_that_are_mixed_are_channels_too() -> None:
    b = Build(2, 5, 3)
    features, tokens, back = b.random(6, 3), b.random(8, 5), b.random(5, 8)
    x = b("linear", b.x, features)
    turned = b("transpose", x, order=(0, 2, 1))
    mixed = b("linear", b.activation(b("linear", turned, tokens), "gelu"), back)
    x = b("add", x, b("transpose", mixed, order=(0, 2, 1)))
    axes = checked(b.done(b("linear", x, b.random(4, 6))))
    assert sizes(axes) == [6, 8]


def test_a_weight_read_twice_is_permuted_once() -> None:
    b = Build(1, 3, 4, 4)
    shared = b.random(6, 6, 1, 1)
    x = b.activation(b("conv2d", b.conv(b.x, 6), shared), "relu")
    axes = checked(b.done(b.conv(b("conv2d", x, shared), 2)))
    assert sizes(axes) == [6]
    b = Build(1, 6, 4, 4)
    shared = b.random(6, 6, 1, 1)
    axes = checked(b.done(b.conv(b("conv2d", b("conv2d", b.x, shared), shared), 2)))
    assert not axes.groups and "is read several times" in reasons(axes)


def test_constants_that_must_stay_hold_their_channels() -> None:
    b = Build(1, 3, 4, 4)
    stem, bias = b.random(6, 3, 1, 1), b.random(6)
    graph = b.done(b.conv(b("conv2d", b.x, stem, bias), 2))
    assert sizes(find_axes(graph)) == [6]
    axes = find_axes(graph, fixed={bias: "it is computed"})
    assert not axes.groups and f"{bias} can't be permuted: it is computed" in reasons(axes)


def test_constants_that_are_one_are_permuted_as_one() -> None:
    b = Build(1, 3, 4, 4)
    one, other = b.random(6, 6, 1, 1), b.random(6, 6, 1, 1)
    b.graph.constants[other] = b.graph.constants[one]
    graph = b.done(b.conv(b("conv2d", b("conv2d", b.conv(b.x, 6), one), other), 2))
    assert sizes(find_axes(graph)) == [6, 6, 6]
    axes = find_axes(graph, same={other: one})
    assert sizes(axes) == [6]
    assert not group_with(axes, other, 0)


def test_uniform_vectors_hold_nothing() -> None:
    """A constant of equal numbers is the same in any order, even where it can't be changed."""
    b = Build(1, 3, 4, 4)
    ones = b.constant(np.ones(6))
    x = b("scale_shift", b.conv(b.x, 6), ones, b.random(6))
    axes = find_axes(b.done(b.conv(x, 2)), fixed={ones: "it is computed"})
    assert sizes(axes) == [6]


@pytest.mark.parametrize("mix, reason", [
    (lambda b, x: b("reshape", b("transpose", b("reshape", x, shape=(1, 2, 2, 2, 3, 3)), order=(0, 1, 4, 2, 5, 3)),
                    shape=(1, 2, 6, 6)), "runs over where they stand"),  # a pixel shuffle
    (lambda b, x: b("transpose", x, order=(0, 2, 1, 3)), "runs over where they stand"),
    (lambda b, x: b("multiply", x, b.x), "no channels that could move along"),
])
def test_what_mixes_channels_with_places_holds_them(mix, reason: str) -> None:
    b = Build(1, 8, 3, 3)
    axes = checked(b.done(b.conv(mix(b, b.conv(b.x, 8)), 2)))
    assert not axes.groups
    assert reason in reasons(axes)


def test_every_line_is_in_a_group_or_has_a_reason() -> None:
    b = Build(1, 3, 4, 4)
    x = b.conv(b("concat", b.conv(b.x, 4), b.x, dimension=1), 6, groups=1)
    graph = b.done(b.conv(b.conv(x, 8, groups=2), 3))
    axes = checked(graph)
    for node in graph:
        weight = node.inputs[1] if node.op == "conv2d" else None
        if weight is None:
            continue
        rows, columns = graph.type_of(weight).shape[:2]
        groups = int(str(node.attributes["groups"]))
        for axis, count in ((0, rows), (1, columns * groups)):
            free = sum(group.units for group in axes.groups for part in group.parts
                       if part.constant == weight and part.dims[-1] == axis)
            held = sum(lines.lines for lines in axes.fixed if lines.constant == weight and lines.axis == axis)
            assert free + held == count


@given(seed=st.integers(0, 10_000), length=st.integers(3, 14), optimised=st.booleans())
def test_generated_networks_give_the_same(seed: int, length: int, optimised: bool) -> None:
    """Networks of all motifs that passes look for, wired by chance; as they are, and optimised, with epilogues."""
    graph = Generator(seed).network(length)
    if optimised:
        graph = optimize(graph)
    axes = find_axes(graph)
    assert_nothing_changes(graph, axes, seed)


def test_generated_networks_have_groups() -> None:
    found = [len(find_axes(Generator(seed).network(10)).groups) for seed in range(60)]
    assert sum(map(bool, found)) > 20
