"""Every pattern from request to compiled network: masks, reports, and answers against float64."""

import copy
import functools
import math
from typing import Any

import pytest
import torch
from every_pattern import one_of_each, sparsity_for
from torch import nn

import zellige as zl
from zellige.errors import PruneError
from zellige.patterns import (
    NM,
    VNM,
    BlockVectorWise,
    Channel,
    Partition,
    Pattern,
    TileElementWise,
    TileVectorWise,
    TileWise,
    WeightShape,
)
from zellige.patterns.shares import floor_share
from zellige.prune import PruneReport, prune

SCOPES = ("layer", "global")


class Small(nn.Module):
    """A stem, a 3×3, a 1×1 and a grouped convolution, a stride, a depthwise convolution, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.square = nn.Conv2d(32, 40, 3, padding=1)
        self.point = nn.Conv2d(40, 64, 1)
        self.grouped = nn.Conv2d(64, 48, 3, padding=1, groups=2, stride=2)
        self.depthwise = nn.Conv2d(48, 48, 3, padding=1, groups=48)
        self.classifier = nn.Linear(48, 20)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.stem, self.square, self.point, self.grouped, self.depthwise):
            x = torch.relu(layer(x))
        return self.classifier(x.mean((2, 3)))


PRUNED = ("square", "point", "grouped", "classifier")


def shape_of(layer: nn.Module) -> WeightShape:
    return WeightShape(tuple(layer.weight.shape), getattr(layer, "groups", 1))  # type: ignore[union-attr, arg-type]


@functools.cache
def _pruned(pattern: Pattern, scope: str, sparsity: float) -> tuple[Small, PruneReport]:
    model = Small()
    return model, prune(model, pattern, sparsity, scope=scope)


def pruned(pattern: Pattern, scope: str, asked: float = 0.75) -> tuple[Small, PruneReport, float]:
    """A copy of the network that several tests look at, its report, and how sparse it was to be."""
    sparsity = sparsity_for(pattern, asked)
    model, report = _pruned(pattern, scope, sparsity)
    return copy.deepcopy(model), report, sparsity


@pytest.mark.parametrize("pattern", one_of_each(), ids=str)
@pytest.mark.parametrize("scope", SCOPES)
def test_layers_keep_to_the_pattern_and_reports_say_what_was_attained(pattern: Pattern, scope: str) -> None:
    before = Small().state_dict()
    model, report, _ = pruned(pattern, scope)
    assert [row.name for row in report.pruned] == list(PRUNED)
    for row in report.pruned:
        layer = model.get_submodule(row.name)
        weight, old = layer.weight.detach(), before[f"{row.name}.weight"]
        census = pattern.verify(weight, shape_of(layer).groups)
        assert census.clean
        assert (row.amounts.blocks, row.amounts.removed) == (census.blocks, census.gone)
        assert row.amounts.zeros == int((weight == 0).sum())
        assert torch.equal(weight[weight != 0], old[weight != 0])
        assert row.l1_kept == pytest.approx(float(weight.abs().sum() / old.abs().sum()), rel=1e-5)
    untouched = {name: value for name, value in before.items() if name.removesuffix(".weight") not in PRUNED}
    assert all(torch.equal(model.state_dict()[name], value) for name, value in untouched.items())


@pytest.mark.parametrize("pattern", [pattern for pattern in one_of_each() if not isinstance(pattern, BlockVectorWise)], ids=str)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("asked", [0.5, 0.75])
def test_counts_are_exact(pattern: Pattern, scope: str, asked: float) -> None:
    """Of every layer, or of all together: blocks or weights exactly, tile-wise within a column of its tiles, N:M but for ends."""
    _, report, sparsity = pruned(pattern, scope, asked)
    for amounts in [row.amounts for row in report.pruned] if scope == "layer" else [report.totals]:
        wanted = floor_share(sparsity, amounts.blocks)
        if isinstance(pattern, (Partition, TileElementWise)):
            assert amounts.removed == wanted
        elif isinstance(pattern, TileWise):
            assert wanted - 4 * 9 < amounts.removed <= wanted
        else:
            assert 0.85 * wanted < amounts.removed <= wanted


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(("asked", "of_blocks"), [(0.5, 0), (0.75, 0.5), (0.9, 0.8)])
def test_blocks_of_vectors_are_counted_exactly(scope: str, asked: float, of_blocks: float) -> None:
    """Of every layer, or of all together; and inside of them each group, which are all whole here, keeps half."""
    pattern = BlockVectorWise(4, 4, 2, 4)
    model, _, _ = pruned(pattern, scope, asked)
    layers = [model.get_submodule(name) for name in PRUNED]
    census = [pattern.block.verify(layer.weight.detach(), shape_of(layer).groups) for layer in layers]
    for some in [[one] for one in census] if scope == "layer" else [census]:
        assert sum(one.gone for one in some) == floor_share(of_blocks, sum(one.blocks for one in some))
    for layer, one in zip(layers, census, strict=True):
        left = shape_of(layer).weights * (one.blocks - one.gone) // one.blocks // 2
        assert int((layer.weight != 0).sum()) == left  # type: ignore[union-attr, operator]


@pytest.mark.parametrize("pattern", [TileWise(4), TileWise(4, False), TileVectorWise(4, 2, 4), TileElementWise(4, 0.05), Channel()],
                         ids=str)
def test_layer_scope_is_global_scope_of_one_layer(pattern: Pattern) -> None:
    one, other = Small(), Small()
    for name in PRUNED:
        prune(one, pattern, 0.75, scope="global", targets=name)
    prune(other, pattern, 0.75, scope="layer")
    for name in PRUNED:
        assert torch.equal(one.get_submodule(name).weight, other.get_submodule(name).weight)


def test_one_threshold_takes_from_where_scores_are_small() -> None:
    for pattern in (TileWise(4), TileWise(4, False), TileElementWise(4, 0.05), Channel()):
        model = Small()
        with torch.no_grad():
            model.square.weight.mul_(10)
        report = prune(model, pattern, 0.5, scope="global")
        rows = {row.name: row.sparsity for row in report.pruned}
        assert rows["square"] < 0.1 and rows["grouped"] > 0.7
        assert all(row.sparsity < 1 for row in report.pruned)


@pytest.mark.parametrize("pattern", one_of_each(), ids=str)
def test_networks_compile_and_answer_right(pattern: Pattern) -> None:
    model, _, _ = pruned(pattern, "layer")
    x = torch.randn(2, 3, 12, 12)
    engine = zl.compile(model.eval(), (x,))
    exact = copy.deepcopy(model).double()(x.double())
    error = (engine(x).double() - exact).abs().max() / exact.abs().max()
    assert error < 2e-5  # f32 with Winograd: a few units of rounding per layer



@pytest.mark.parametrize("pattern", [NM(2, 4), VNM(16, 2, 8), NM(1, 4)], ids=str)
def test_what_a_kernel_cannot_use_is_told(pattern: Pattern) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 1), nn.ReLU())
    sparsity = sparsity_for(pattern, 0.5)
    prune(model, pattern, sparsity, targets=["0", "2"])
    engine = zl.compile(model.eval(), (torch.randn(1, 64, 12, 12),))
    layers = [layer for layer in engine.layers if layer.op == "conv2d"]
    assert len(layers) == 2
    for layer in layers:
        assert layer.pattern == f"{pattern.n}:{pattern.m}"  # type: ignore[attr-defined]
        assert f"{sparsity:.0%} zeros ({layer.pattern})" in layer.reason
        assert ("no gain expected" in layer.reason) == (layer.density > 0.95)


@pytest.mark.parametrize("pattern", one_of_each(), ids=str)
@pytest.mark.parametrize(("spoil", "message"), [
    (lambda model: model.point.weight.fill_(0), "layer 'point' are all zero.*ignore"),
    (lambda model: model.point.weight[3].fill_(math.nan), "layer 'point' holds NaN"),
    (lambda model: model.point.weight[3].fill_(math.inf), "layer 'point' holds NaN or infinite"),
])
@pytest.mark.parametrize("scope", SCOPES)
def test_bad_weights_leave_the_model_untouched(pattern: Pattern, spoil: Any, message: str, scope: str) -> None:
    model = Small()
    with torch.no_grad():
        spoil(model)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(PruneError, match=message):
        prune(model, pattern, sparsity_for(pattern, 0.5), scope=scope)
    for name, value in model.state_dict().items():
        assert torch.equal(value.nan_to_num(), before[name].nan_to_num())


@pytest.mark.parametrize("pattern", one_of_each(), ids=str)
@pytest.mark.parametrize("sparsity", [1.0, -0.5, math.nan])
def test_bad_sparsities_leave_the_model_untouched(pattern: Pattern, sparsity: float) -> None:
    model = Small()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(PruneError, match="Sparsity is the share"):
        prune(model, pattern, sparsity)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("pattern", one_of_each(), ids=str)
def test_patterns_larger_than_all_layers_are_refused(pattern: Pattern) -> None:
    model = nn.Linear(3, 1)
    with pytest.raises(PruneError, match=r"No layer is left to prune: .*too small"):
        prune(model, pattern, sparsity_for(pattern, 0.5))


@pytest.mark.parametrize("text", ["tile:4", "channel"])
@pytest.mark.parametrize("inputs", [None, (torch.zeros(1, 3, 12, 12),)])
def test_outputs_of_the_network_that_go_are_warned_of(text: str, inputs: Any) -> None:
    report = prune(Small(), text, 0.75, inputs)
    assert len(report.warnings) == 1
    assert report.warnings[0].startswith(f"{10 if text == 'tile:4' else 15} of 20 outputs of layer 'classifier', the last one")
    assert prune(Small(), text, 0.75, inputs, ignore="classifier").warnings == ()
    assert prune(Small(), "tile-rows:4", 0.75, inputs).warnings == ()


def test_a_sparsity_that_a_pattern_cannot_have_is_refused() -> None:
    for text, sparsity, message in (("nm:2:4", 0.75, "its sparsity is 0.5"), ("vnm:4:2:8", 0.5, "its sparsity is 0.75"),
                                    ("tvw:4:2:4", 0.25, "0.5 or more"), ("tvw:4x8:2:4", 0.25, "0.5 or more"),
                                    ("tew:4:0.1", 0.9, "leaves no room")):
        with pytest.raises(PruneError, match=message):
            prune(Small(), text, sparsity)
