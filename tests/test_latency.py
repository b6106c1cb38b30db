"""Budgets of latency: the pruned network's own plan keeps them, and ``zl.prune`` knows the compiler in any order of imports."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

import zellige as zl
from zellige.api import optimized_graph
from zellige.cpu.batch import expected_cycles, plan_batch
from zellige.cpu.isa import ISAS
from zellige.cpu.known_costs import known_costs
from zellige.cpu.lower.lowering import Options
from zellige.errors import PruneError
from zellige.latency import latency_price, thinned
from zellige.prune import Price

ISA = next(iter(ISAS.values()))
OPTIONS = Options(costs=known_costs(ISA).costs)
INPUTS = (torch.ones(1, 3, 28, 28),)


class Residual(nn.Module):
    """A stem, a depthwise layer, two convolutions with batch norm around a sum, a classifier, and a layer that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = nn.Conv2d(3, 64, 3, 2, 1), nn.Conv2d(64, 64, 3, padding=1, groups=64)
        self.one, self.norm, self.two = nn.Conv2d(64, 128, 1), nn.BatchNorm2d(128), nn.Conv2d(128, 128, 3, padding=1)
        self.last, self.unused = nn.Linear(128, 64), nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.one(self.deep(self.stem(x)).relu()))
        return self.last((x + self.two(x).relu()).mean((2, 3)))


def network() -> Residual:
    torch.manual_seed(0)
    return Residual().eval()


def cycles(model: nn.Module) -> float:
    return expected_cycles(plan_batch(optimized_graph(model, INPUTS), ISA, OPTIONS))


@pytest.fixture(scope="module")
def price() -> Price:
    return latency_price(optimized_graph(network(), INPUTS), zl.Block(8, 8), ISA, OPTIONS)


def test_costs_are_those_of_the_plan(price: Price) -> None:
    assert price.whole == pytest.approx(cycles(network()), rel=1e-9)
    plan = plan_batch(thinned(optimized_graph(network(), INPUTS), zl.Block(8, 8), 0.5), ISA, OPTIONS)
    expected = {row.name: row.cycles for row in plan.layers}
    assert price.cost("two", 0.5) == pytest.approx(expected["two"], rel=1e-9)
    assert price.cost("two", 0.5) < price.cost("two", 0.9) < price.cost("two", 1.0) and price.cost("unused", 0.5) == 0
    assert price.cost("deep", 0.5) == price.cost("deep", 1.0) > 0


@pytest.mark.parametrize("share", [0.6, pytest.param(0.85, marks=pytest.mark.full)])
def test_the_plan_of_the_pruned_network_keeps_the_budget(price: Price, share: float) -> None:
    model = network()
    report = zl.prune(model, zl.Block(8, 8), example_inputs=INPUTS, budget={"latency": share}, prices={"latency": price})
    assert cycles(model) / cycles(network()) == pytest.approx(share, abs=0.03)
    assert {layer.name for layer in report.pruned} == {"one", "two", "last"}


def test_the_compiler_is_asked_and_the_model_left_in_its_modes() -> None:
    model = network().train()
    model.norm.eval()
    report = zl.prune(model, "block:8x8", example_inputs=INPUTS, budget={"latency": 0.8})
    assert report.scope == "budget of 0.8 latency" and report.totals.removed > 0
    assert model.training and not model.norm.training and torch.equal(model.norm.running_mean, torch.zeros(128))


def test_what_latency_needs_is_said(price: Price) -> None:
    with pytest.raises(PruneError, match="needs the model and example_inputs"):
        zl.prune(network(), "block:8x8", budget={"latency": 0.8})
    with pytest.raises(PruneError, match=r"budget of 0\.05 latency can't be had"):
        zl.prune(network(), "block:8x8", example_inputs=INPUTS, budget={"latency": 0.05}, prices={"latency": price})


ORDERS = [
    "from zellige.prune.report import Amounts; import zellige as zl",
    "import zellige as zl; zl.prune",
    "from zellige import prune; import zellige as zl; assert zl.prune is prune",
    "import zellige.api, zellige as zl",
]


def test_prune_is_package_and_function_in_any_order_of_imports() -> None:
    script = f"""
import inspect, sys
for imports in {ORDERS!r}:
    for name in [name for name in sys.modules if name.split(".")[0] == "zellige"]:
        del sys.modules[name]
    exec(imports)
    import zellige.prune.usage as usage
    import zellige.prune as package
    assert zl.prune is package and zl.prune.usage is usage is sys.modules["zellige.prune.usage"], imports
    assert inspect.signature(zl.prune) == inspect.signature(package.prune), imports
    try:
        zl.prune(None, "block:8x8", budget={{"latency": 0.5}})
    except zl.ZelligeError as error:
        assert "needs the model and example_inputs" in str(error), imports
    else:
        raise AssertionError("the compiler wasn't asked: " + imports)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_prices_beside_latency_are_checked() -> None:
    beside: Any = 5
    with pytest.raises(PruneError, match="prices is a table"):
        zl.prune(network(), "block:8x8", example_inputs=INPUTS, budget={"latency": 0.8}, prices=beside)


def test_an_exported_program_is_refused_before_it_is_compiled() -> None:
    exported = torch.export.export(network(), INPUTS).module()
    with pytest.raises(PruneError, match="prune the model first, then export it"):
        zl.prune(exported, "block:8x8", example_inputs=INPUTS, budget={"latency": 0.8})
