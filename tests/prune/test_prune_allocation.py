"""Shares of blocks over layers: nothing collapses, layers that come close are warned of."""

import pytest
import torch
from torch import nn

from zellige.errors import PruneError
from zellige.patterns import Block
from zellige.prune import prune


def uneven() -> nn.Sequential:
    """Two layers of 64 blocks, the second a hundred times smaller in magnitude."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    with torch.no_grad():
        model[1].weight.mul_(0.01)
    return model


def test_global_takes_from_where_the_weights_are_small_but_leaves_a_block() -> None:
    model = uneven()
    report = prune(model, Block(8, 8), 0.5, scope="global")
    assert [row.amounts.removed for row in report.layers] == [1, 63]
    assert Block(8, 8).verify(model[1].weight).gone == 63
    emptied, silenced = report.warnings
    assert "'1'" in emptied and "98.44% zero" in emptied
    assert "56 of 64 outputs of layer '1'" in silenced
    assert emptied in str(report) and silenced in str(report)


def test_layer_scope_shares_evenly_and_warns_of_lost_outputs_alone() -> None:
    report = prune(uneven(), Block(8, 8), 0.97)
    assert [row.amounts.removed for row in report.layers] == [62, 62]
    assert len(report.warnings) == 1 and "outputs of layer '1'" in report.warnings[0]
    assert prune(uneven(), Block(8, 8), 0.5).warnings == ()


def test_global_compares_means_per_weight() -> None:
    """A 1×1 filter's block has a ninth of a 3×3 one's weights; at equal magnitude per weight neither goes first."""
    model = nn.Sequential(nn.Conv2d(32, 32, 3), nn.Conv2d(32, 32, 1))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[1].weight.fill_(1.5)
    report = prune(model, Block(8, 8), 0.5, scope="global")
    assert [row.amounts.removed for row in report.layers] == [15, 1]


def test_ties_across_layers_go_to_the_earlier_one() -> None:
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))
    with torch.no_grad():
        for layer in model:
            layer.weight.fill_(1.0)
    report = prune(model, Block(8, 8), 0.5, scope="global")
    assert [row.amounts.removed for row in report.layers] == [15, 1]
    zero = [Block(8, 8).block_scores(layer.weight.detach() != 0) == 0 for layer in model]
    assert zero[0].tolist() == [True] * 15 + [False]
    assert zero[1].tolist() == [True] + [False] * 15


def test_global_refuses_what_would_empty_a_layer() -> None:
    model = nn.Sequential(*[nn.Linear(16, 16) for _ in range(10)])
    before = [layer.weight.clone() for layer in model]
    with pytest.raises(PruneError, match=r"36 of 40 blocks.*10 layers"):
        prune(model, Block(8, 8), 0.9, scope="global")
    assert all(torch.equal(layer.weight, weight) for layer, weight in zip(model, before, strict=True))
    report = prune(model, Block(8, 8), 0.75, scope="global")
    assert all(row.amounts.removed == 3 for row in report.layers)
