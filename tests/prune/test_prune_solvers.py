"""``zl.prune`` with a solver: what is reported, what is refused, and a model that is left alone where something is wrong."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest
import torch
from every_pattern import one_of_each, sparsity_for
from torch import nn

from zellige.demo.network import DigitsNetwork
from zellige.errors import PruneError
from zellige.patterns import Block, Pattern, TileElementWise, TileVectorWise, TileWise
from zellige.prune import prune
from zellige.prune.report import COLUMNS, ERROR_COLUMNS
from zellige.prune.solvers import OBS, SOLVERS, FixedOrder
from zellige.prune.solvers.problem import damped


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3, groups=2), nn.BatchNorm2d(32), nn.ReLU(),
                         nn.Conv2d(32, 16, 1), nn.Flatten(), nn.Linear(16 * 4, 10)).train()


def batches(count: int = 3, seed: int = 1) -> list[torch.Tensor]:
    """Smooth images: neighbouring pixels have much in common."""
    generator = torch.Generator().manual_seed(seed)
    return [nn.functional.avg_pool2d(torch.randn(8, 3, 8, 8, generator=generator), 3, 1) for _ in range(count)]


def broken() -> Iterator[torch.Tensor]:
    """Data that fails after a batch."""
    yield batches()[0]
    raise RuntimeError("the file ends here")


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


GOOD: dict[str, Any] = {"pattern": Block(4, 4), "sparsity": 0.5, "solver": "obs"}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("sequential", [True, False])
def test_output_errors_are_those_of_the_model_itself(solver: str, sequential: bool) -> None:
    """Every layer's inputs are caught in the pruned model (the dense one, out of sequence) and multiplied by both weights."""
    dense, model, held_out = network(), network(), batches(2, seed=9)
    report = prune(model, **{**GOOD, "solver": solver}, data=batches(), held_out=held_out, sequential=sequential)
    assert report.solver == solver and report.measured_on == "held-out batches"
    seen_by = model if sequential else dense
    layers = {row.name: row for row in report.pruned}
    assert list(layers) == ["2", "5", "7"]
    for name, row in layers.items():
        inputs: list[torch.Tensor] = []
        handle = seen_by.get_submodule(name).register_forward_pre_hook(lambda module, given, into=inputs: into.append(given[0]))  # type: ignore[misc]
        with torch.no_grad():
            for batch in held_out:
                seen_by.eval()(batch)
        handle.remove()
        module, after = copy.deepcopy(dense.get_submodule(name)).double(), model.get_submodule(name)
        module.bias = None
        full = torch.cat([module(x.double()).detach().flatten() for x in inputs])
        plain = module.weight * Block(4, 4).mask(module.weight.detach().abs(), 0.5, row.groups)
        for weight, found in ((after.weight.double(), row.errors.solver), (plain, row.errors.magnitude)):
            other = copy.deepcopy(module)
            other.weight = nn.Parameter(weight.detach().clone())
            pruned = torch.cat([other(x.double()).detach().flatten() for x in inputs])
            assert found == pytest.approx(float((full - pruned).square().sum() / full.square().sum()), rel=1e-4)
        assert row.errors.solver < row.errors.magnitude
        assert row.amounts.removed == row.amounts.blocks // 2
        assert Block(4, 4).verify(after.weight.detach(), row.groups).clean


def test_all_else_is_as_it_was() -> None:
    model, data = network(), batches()
    before, random = state_of(model), torch.get_rng_state()
    report = prune(model, **GOOD, data=data)
    pruned = {f"{row.name}.weight" for row in report.pruned}
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) != (name in pruned)
    assert model.training and all(weight.requires_grad and weight.grad is None for weight in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    again = network()
    assert prune(again, **GOOD, data=data).as_dict() == report.as_dict()
    assert all(map(torch.equal, again.state_dict().values(), model.state_dict().values()))


def test_the_report_tells_errors() -> None:
    report = prune(network(), **GOOD, data=batches())
    lines = str(report).splitlines()
    assert all(word in lines[0] for word in (*COLUMNS, *ERROR_COLUMNS))
    assert "block:4x4 at 0.5 by solver obs, scope layer" in str(report)
    assert lines[-1] == "output errors: of each layer by itself, on the calibration data itself"
    told = json.loads(report.to_json())
    assert (told["solver"], told["measured_on"]) == ("obs", "the calibration data itself")
    errors = [row["output_errors"] for row in told["layers"]]
    assert errors[0] is None and 0 < errors[1]["solver"] < errors[1]["magnitude"] < 1
    plain = prune(network(), "block:4x4", 0.5)
    assert plain.solver is None and plain.as_dict()["layers"][1]["output_errors"] is None
    assert ERROR_COLUMNS[0] not in str(plain)


@pytest.mark.parametrize("pattern", one_of_each(), ids=str)
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_pattern_is_kept_to_or_refused(pattern: Pattern, solver: str) -> None:
    model, sparsity = network(), sparsity_for(pattern, 0.5)
    before = state_of(model)
    if SOLVERS[solver].refusal(pattern):
        with pytest.raises(PruneError, match=f"Solver '{solver}' can't do {pattern}: .*take solver 'admm'"):
            prune(model, pattern, sparsity, solver=solver, data=batches())
        assert all(map(torch.equal, model.state_dict().values(), before.values()))
        return
    report = prune(model, pattern, sparsity, solver=solver, data=batches())
    for row in report.pruned:
        assert row.sparsity == pytest.approx(sparsity, abs=0.15)
        weight = model.get_submodule(row.name).weight.detach()
        if not isinstance(pattern, (TileElementWise, TileVectorWise)):
            assert pattern.verify(weight, row.groups).clean


def test_scopes_tables_and_budgets_say_how_much() -> None:
    plain, solved = network(), network()
    expected = prune(plain, "block:4x4", 0.5, scope="global")
    report = prune(solved, **GOOD, scope="global", data=batches())
    assert [row.amounts.removed for row in report.pruned] == [row.amounts.removed for row in expected.pruned]
    expected = prune(network(), "block:4x4", 0.5, scope="erk")
    report = prune(network(), **GOOD, scope="erk", data=batches())
    assert [row.amounts.removed for row in report.pruned] == [row.amounts.removed for row in expected.pruned]
    report = prune(network(), "block:4x4", {"5": 0.75, "7": 0.25}, solver="admm", data=batches())
    assert [row.amounts.removed / row.amounts.blocks for row in report.pruned] == [0.75, 0.25]
    wanted = prune(network(), "block:4x4", budget={"bytes": 0.7})
    report = prune(network(), "block:4x4", budget={"bytes": 0.7}, solver="fixed-order", data=batches())
    assert [row.amounts.removed for row in report.pruned] == [row.amounts.removed for row in wanted.pruned]
    assert prune(network(), "block:4x4", Fraction(1, 2), scope="global").totals.removed == wanted.totals.blocks // 2
    once = iter(batches())  # both a score and a solver go through it
    by_wanda = prune(network(), **GOOD, scope="global", score="wanda", data=once)
    assert by_wanda.score == "wanda" and by_wanda.totals.removed == by_wanda.totals.blocks // 2


def test_half_precision_weights() -> None:
    """Solved in float64, rounded once: as near as the same model in float32 comes to."""
    model = DigitsNetwork(widths=(16, 16, 16)).to(torch.bfloat16)
    data = [torch.randn(8, 1, 32, 32, dtype=torch.bfloat16)]
    report = prune(model, Block(8, 8), 0.5, solver="fixed-order", data=data)
    assert all(parameter.dtype == torch.bfloat16 for parameter in model.parameters())
    assert all(row.errors.solver < row.errors.magnitude for row in report.pruned)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"solver": "obc"}, "Unknown solver 'obc'. Known: obs, fixed-order, admm"),
        ({"solver": 3}, "Unknown solver 3"),
        ({"data": None}, "Solver 'obs' needs calibration data"),
        ({"data": []}, "Solver 'obs' needs data, and there is no batch in it"),
        ({"data": torch.zeros(2, 3, 6, 6)}, "Solver 'obs' needs data: an iterable of batches"),
        ({"data": [torch.zeros(2, 4, 6, 6)]}, "Solver 'obs': the model can't run on a batch"),
        ({"data": broken()}, "Solver 'obs': the data fails after batch 1: RuntimeError: the file ends here"),
        ({"data": broken(), "score": "taylor", "scope": "global"}, "calibration: the data fails after batch 1"),
        ({"data": batches(), "held_out": broken()}, "Solver 'obs', on held-out data: the data fails after batch 1"),
        ({"data": [torch.zeros(0, 3, 6, 6)]}, "makes nothing but zeros of the data"),
        ({"held_out": []}, "Solver 'obs', on held-out data needs data"),
        ({"held_out": [torch.zeros(2, 4, 6, 6)]}, "the model can't run on a batch"),
        ({"sequential": 1}, "sequential is True or False"),
        ({"score": "l2"}, "Solver 'obs' chooses by itself what goes"),
        ({"pattern": TileWise(4)}, "can't do tile:4"),
        ({"pattern": TileWise(4), "solver": "admm", "scope": "global"}, "Scope 'global' doesn't say what share of a layer tile:4"),
        ({"solver": None, "data": None, "held_out": [torch.zeros(2, 3, 6, 6)]}, "held_out and sequential are for solvers"),
        ({"solver": None, "data": None, "sequential": False}, "held_out and sequential are for solvers"),
        ({"solver": None}, "data and loss are for scores and scopes .* and for solvers"),
        ({"data": [torch.full((2, 3, 6, 6), math.nan)]}, "layer '2' is called on NaN or infinite inputs"),
        ({"held_out": [torch.full((2, 3, 6, 6), math.inf)]}, "layer '2' is called on NaN or infinite inputs"),
        ({"loss": lambda model, batch: model(batch)}, "the loss must be a tensor of one real number"),
    ],
)
def test_bad_arguments(changed: dict[str, Any], message: str) -> None:
    model = network()
    before = state_of(model)
    with pytest.raises(PruneError, match=message):
        prune(model, **{**GOOD, "data": batches(), **changed})
    assert all(map(torch.equal, model.state_dict().values(), before.values()))
    assert model.training and not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("fault", ["weights are NaN", "weights are zero", "outputs are zero", "solver fails", "interrupted"])
def test_a_fault_in_the_last_layer_leaves_the_earlier_ones_alone(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, message = network(), ""
    last = model[7]
    kind: type[BaseException] = PruneError
    with torch.no_grad():
        if fault == "weights are NaN":
            last.weight[0, 0], message = math.nan, "layer '7' holds NaN"
        elif fault == "weights are zero":
            last.weight.zero_()
            message = "The scores of layer '7' are all zero"
        elif fault == "outputs are zero":
            model[5].weight.zero_()
            model[5].bias.zero_()
            message = "layer '7' makes nothing but zeros of the data"
    if fault in ("solver fails", "interrupted"):
        solve = OBS.solve

        def solve_but_the_last(self: OBS, problem: Any) -> Any:
            if problem.layer != "7":
                return solve(self, problem)
            raise RuntimeError("not positive-definite") if fault == "solver fails" else KeyboardInterrupt
        monkeypatch.setattr(OBS, "solve", solve_but_the_last)
        message = "layer '7' can't be solved: RuntimeError: not positive-definite" if fault == "solver fails" else ""
        kind = PruneError if fault == "solver fails" else KeyboardInterrupt
    ignore = ["5"] if fault == "outputs are zero" else None
    before = state_of(model)
    with pytest.raises(kind, match=message):
        prune(model, **GOOD, data=batches(), ignore=ignore)
    for value, kept in zip(model.state_dict().values(), before.values(), strict=True):
        assert torch.equal(value.nan_to_num(), kept.nan_to_num())
    assert model.training


def test_settings_of_a_solver() -> None:
    for value in (0, -1, math.inf, math.nan, "much", True):
        with pytest.raises(PruneError, match="damping of a solver is a finite number above 0"):
            OBS(damping=value)  # type: ignore[arg-type]
    hessian = torch.diag(torch.tensor([1.0, 3.0]).double())[None]
    assert damped(hessian, 0.5).diagonal(dim1=1, dim2=2).tolist() == [[2.0, 4.0]]
    heavy, light = network(), network()
    prune(heavy, "block:4x4", 0.5, solver=FixedOrder(damping=1e6), data=batches())
    prune(light, "block:4x4", 0.5, solver=FixedOrder(), data=batches())
    weight, dense = heavy[7].weight, network()[7].weight
    torch.testing.assert_close(weight[weight != 0], dense[weight != 0], rtol=1e-4, atol=1e-5)  # nothing is made up for
    assert not torch.allclose(light[7].weight[light[7].weight != 0], dense[light[7].weight != 0], rtol=1e-2)


def test_where_nothing_goes_weights_stay() -> None:
    """Nothing goes: every solver leaves the weights to the bit."""
    for solver in SOLVERS:
        model = network()
        before = state_of(model)
        report = prune(model, Block(4, 4), 0.0, solver=solver, data=batches())
        assert all(map(torch.equal, model.state_dict().values(), before.values()))
        assert all(row.errors.solver == row.errors.magnitude == 0 for row in report.pruned)
