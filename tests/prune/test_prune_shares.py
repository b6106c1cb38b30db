"""Sparsities layer by layer: ERK against a search for its factor, and tables."""

from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from zellige.errors import PruneError
from zellige.patterns import NM, Block, Unstructured, WeightShape
from zellige.prune import prune
from zellige.prune.erk import erk_sparsities
from zellige.prune.table import sparsity_in

SIDES = st.integers(1, 40)
SHAPES = st.lists(st.one_of(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES, st.integers(1, 5), st.integers(1, 5))), min_size=1,
                  max_size=6).map(lambda dims: [WeightShape(one) for one in dims])


def searched(shapes: list[WeightShape], sparsity: float) -> list[float]:
    """The factor by bisection: what is kept grows with it."""
    def densities(factor: float) -> list[float]:
        return [min(1.0, factor * sum(shape.dims) / shape.weights) for shape in shapes]

    wanted, low, high = (1 - sparsity) * sum(shape.weights for shape in shapes), 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        kept = sum(density * shape.weights for density, shape in zip(densities(middle), shapes, strict=True))
        low, high = (middle, high) if kept < wanted else (low, middle)
    return [1 - density for density in densities(high)]


@given(SHAPES, st.integers(1, 99))
def test_erk_is_the_one_factor_that_keeps_what_was_asked(shapes: list[WeightShape], percent: int) -> None:
    found = erk_sparsities(shapes, Fraction(percent, 100))
    assert [float(share) for share in found] == pytest.approx(searched(shapes, percent / 100), abs=1e-9)
    gone = sum(share * shape.weights for share, shape in zip(found, shapes, strict=True))
    assert gone == Fraction(percent, 100) * sum(shape.weights for shape in shapes)
    assert erk_sparsities(shapes, Fraction(0)) == [0.0] * len(shapes)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.Sequential(nn.Conv2d(16, 32, 3), nn.Conv2d(32, 32, 1)), nn.Linear(32, 64))


def shares(report: Any) -> dict[str, float]:
    return {layer.name: layer.amounts.removed / layer.amounts.blocks for layer in report.pruned}


def test_erk_prunes_large_layers_most() -> None:
    report = prune(network(), Unstructured(), 0.8, scope="erk")
    expected = erk_sparsities([WeightShape((32, 16, 3, 3)), WeightShape((32, 32, 1, 1)), WeightShape((64, 32))], Fraction(4, 5))
    assert [layer.amounts.removed for layer in report.pruned] == [
        int(share * size) for share, size in zip(expected, (4608, 1024, 2048), strict=True)]
    assert report.totals.sparsity == pytest.approx(0.8, abs=0.001) and report.scope == "erk"


@pytest.mark.parametrize(("table", "expected"), [
    ({"1": 0.5, "1.0": 0.75}, {"1.0": 0.75, "1.1": 0.5}),
    ({"1.0": 0.75, "1": 0.5}, {"1.0": 0.75, "1.1": 0.5}),
    ({"re:.*": 0.25, "2": 0.5, "1": 0.0}, {"1.0": 0.0, "1.1": 0.0, "2": 0.5}),
    ({"re:1": 0.25}, {"1.0": 0.25, "1.1": 0.25}),
    ({"0": 0.5, "re:.*": 0.25, "re:2": 0.25}, {"0": 0.5, "1.0": 0.25, "1.1": 0.25, "2": 0.25}),  # the stem, named in full
])
def test_tables(table: dict[str, float], expected: dict[str, float]) -> None:
    report = prune(network(), Unstructured(), table)
    assert shares(report) == expected
    assert report.scope == "table" and report.sparsity == report.totals.removed / report.totals.blocks


def test_a_table_finds_shared_weights_by_any_name() -> None:
    assert sparsity_in({"a": 0.5, "b.c": 0.25}, ("a.x", "b.c")) == 0.25


@pytest.mark.parametrize(("options", "message"), [
    ({"sparsity": {"re:1": 0.5, "re:.*0": 0.6}}, "gives layer '1.0' several: 0.6 by 're:.*0', 0.5 by 're:1'"),
    ({"sparsity": {"re:1": Fraction(1, 2), "re:.*0": 0.6}}, "gives layer '1.0' several: 0.6 by 're:.*0', 0.5 by 're:1'"),
    ({"sparsity": {"7": 0.5}}, "'7' matches no"),
    ({"sparsity": {"re:(": 0.5}}, "no valid regular expression"),
    ({"sparsity": {3: 0.5}}, "not 3"),
    ({"sparsity": {"1": 1.0}}, "has 1.0 for '1'. Sparsity is"),
    ({"sparsity": {"1": "half"}}, "has 'half' for '1'"),
    ({"sparsity": {}}, "No layer is left"),
    ({"sparsity": {"1": 0.5}, "targets": ["1"]}, "leave out targets and scope"),
    ({"sparsity": {"1": 0.5}, "scope": "global"}, "leave out targets and scope"),
    ({"sparsity": {"1": 0.4}, "pattern": NM(2, 4)}, "has 0.4 for '1'. nm:2:4 keeps"),
    ({"sparsity": 0.5, "scope": "erk", "pattern": NM(2, 4)}, "Layer '1.0' should have a sparsity of .*nm:2:4 keeps"),
])
def test_bad_requests(options: dict[str, Any], message: str) -> None:
    model = network()
    before = [value.clone() for value in model.parameters()]
    with pytest.raises(PruneError) as caught:
        prune(model, **{"pattern": Block(8, 8), **options})
    assert all(part in str(caught.value) for part in message.split(".*") if "re:" not in message) or message in str(caught.value)
    assert all(torch.equal(*both) for both in zip(before, model.parameters(), strict=True))
