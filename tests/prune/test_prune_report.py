"""The report: a table to read, JSON to keep."""

import doctest
import importlib
import json
import re

import pytest
import torch
from torch import nn

import zellige.prune
from zellige.prune import PruneReport, prune
from zellige.prune.report import COLUMNS


@pytest.fixture
def report() -> PruneReport:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Conv2d(32, 64, 3, groups=2), nn.Linear(32, 20))
    return prune(model, "block:8x8", 0.5)


def test_the_table_has_a_line_for_every_layer(report: PruneReport) -> None:
    lines = str(report).splitlines()
    assert re.split(r"\s{2,}", lines[0]) == list(COLUMNS)
    assert lines[2].split()[:4] == ["0", "Conv2d", "32×3×3×3", "dense"] and "stem" in lines[2]
    assert lines[3].split()[:8] == ["1", "Conv2d", "64×16×3×3", "/2", "groups", "block:8x8", "8/16", "50.00%"]
    assert lines[4].split()[:5] == ["2", "Linear", "20×32", "block:8x8", "6/12"]
    assert "2 layers pruned, 1 left alone" in str(report)
    assert "14 of 28 blocks gone" in str(report)


def test_json_holds_the_same(report: PruneReport) -> None:
    told = json.loads(report.to_json())
    assert (told["pattern"], told["sparsity"], told["score"], told["scope"]) == ("block:8x8", 0.5, "l1", "layer")
    assert [layer["name"] for layer in told["layers"]] == ["0", "1", "2"]
    assert told["layers"][0]["pattern"] is None and "stem" in told["layers"][0]["reason"]
    assert told["layers"][1]["shape"] == [64, 16, 3, 3] and told["layers"][1]["groups"] == 2
    assert told["layers"][1]["sparsity"] == 0.5 and told["layers"][1]["reason"] is None
    assert told["layers"][2]["weights"] == 20 * 32 and told["layers"][2]["removed"] == 6
    assert told["totals"]["removed"] == 14 and told["totals"]["blocks"] == 28
    assert told["model_totals"]["weights"] == 32 * 27 + 64 * 144 + 20 * 32


def test_l1_kept_is_the_share_of_magnitude_left() -> None:
    model = nn.Linear(32, 32)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.weight[:16] = 3.0
    report = prune(model, "block:8x8", 0.5)
    assert report.layers[0].l1_kept == 0.75
    assert report.layers[0].sparsity == 0.5
    assert report.totals.l1_kept == 0.75


def test_a_layer_of_zeros_has_nothing_to_lose() -> None:
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))
    nn.init.zeros_(model[0].weight)
    assert prune(model, "block:8x8", 0.5, ignore="0").layers[0].l1_kept == 1.0


def test_the_package_can_be_called_like_its_function() -> None:
    torch.manual_seed(0)
    assert zellige.prune(nn.Linear(32, 32), "block:8x8", 0.5).totals.removed == 8


def test_docstring_examples() -> None:
    result = doctest.testmod(importlib.import_module("zellige.prune.prune"))
    assert result.attempted > 0 and result.failed == 0
