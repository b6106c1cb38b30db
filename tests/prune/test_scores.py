"""Scores against oracles: gradients and Hessians by hand or by brute force, and a model that stays as it was."""

import itertools
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, unfold
from torch.utils.data import DataLoader, IterableDataset

from zellige.errors import PruneError
from zellige.patterns import Block, Unstructured
from zellige.prune import prune
from zellige.prune.calibration import Calibration
from zellige.prune.data_score import DataScore
from zellige.prune.hessian import Hessian, random_signs
from zellige.prune.layers import find_layers
from zellige.prune.scores import DATA_SCORES, score_named, scores_of, variance

EXACT = {"rtol": 1e-9, "atol": 1e-15}  # float64, sums in another order


def squared_error(model: nn.Module, batch: Any) -> torch.Tensor:
    inputs, targets = batch
    return (model(inputs) - targets).square().sum(1).mean()


def scores(score: Any, model: nn.Module, data: Any, loss: Any = squared_error) -> list[torch.Tensor]:
    layers = find_layers(model)
    of = scores_of(score_named(score), model, layers, Calibration(data, loss))
    return [of(layer) for layer in layers]


def pairs(batches: int, size: int, inputs: int, outputs: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [(torch.randn(size, inputs, generator=generator, dtype=torch.float64),
             torch.randn(size, outputs, generator=generator, dtype=torch.float64)) for _ in range(batches)]


def test_variance_is_taken_about_the_mean_of_the_tensor() -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 7, 3) + 2
    assert variance(weight).mean().item() == pytest.approx(weight.double().var(correction=0).item(), rel=1e-12)
    model = nn.Linear(8, 16, bias=False)
    with torch.no_grad():
        model.weight.fill_(1)
        model.weight[:8] = torch.tensor([1.0, -1.0]).repeat(4)  # the mean is ½: a block of ones is nearer to it
    prune(model, Block(8, 8), 0.5, score="variance", targets="")
    assert model.weight[8:].eq(0).all() and model.weight[:8].ne(0).all()


def test_taylor_and_fisher_by_hand() -> None:
    """For y = Wx and L the mean over samples of ‖y − t‖², the gradient is the mean of 2 (Wx − t) xᵀ."""
    model, data = nn.Linear(4, 3, bias=False).double(), pairs(3, 5, 4, 3)
    weight = model.weight.detach()
    per_sample = [[2 * torch.outer(weight @ x - t, x) for x, t in zip(*batch, strict=True)] for batch in data]
    per_batch = [torch.stack(gradients).mean(0) for gradients in per_sample]
    torch.testing.assert_close(scores("taylor", model, data)[0], sum((g * weight).square() for g in per_batch), **EXACT)
    squares = torch.stack([g.square() for gradients in per_sample for g in gradients]).mean(0)
    torch.testing.assert_close(scores("fisher", model, data)[0], weight.square() * squares / 2, **EXACT)


def test_taylor_foretells_what_the_loss_does() -> None:
    """To first order, a weight that goes by a small part changes the loss by that part of the root of its score."""
    torch.manual_seed(0)
    model, data = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double(), pairs(1, 16, 4, 2)
    for layer, score in zip((model[0], model[2]), scores("taylor", model, data), strict=True):
        for index in itertools.product(*map(range, score.shape)):
            losses = []
            for part in (1e-5, -1e-5):
                with torch.no_grad():
                    kept = layer.weight[index].clone()
                    layer.weight[index] *= 1 - part
                    losses.append(float(squared_error(model, data[0])))
                    layer.weight[index] = kept
            change = (losses[0] - losses[1]) / 2e-5
            assert change**2 == pytest.approx(score[index].item(), rel=1e-5, abs=1e-12)


def exact_diagonals(model: nn.Sequential, data: list[Any]) -> list[torch.Tensor]:
    """The mean over batches of the diagonal of the Hessian, one entry after another."""
    layers, found = find_layers(model), []
    for layer in layers:
        diagonal = torch.zeros_like(layer.weight.detach())
        for batch in data:
            (gradient,) = torch.autograd.grad(squared_error(model, batch), layer.weight, create_graph=True)
            for index in itertools.product(*map(range, gradient.shape)):
                (row,) = torch.autograd.grad(gradient[index], layer.weight, retain_graph=True)
                diagonal[index] += row[index] / len(data)
        found.append(diagonal)
    return found


def test_hessian_is_exact_where_nothing_stands_off_the_diagonal() -> None:
    """Inputs that are multiples of unit vectors couple no two weights: one draw of signs has to be enough."""
    model = nn.Linear(3, 2, bias=False).double()
    data = [(torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)), torch.zeros(3, 2, dtype=torch.float64))]
    expected = model.weight.detach().square() * torch.tensor([1.0, 4.0, 9.0]) / 3  # H = 2 x² ÷ 3 samples
    for seed in range(3):
        torch.testing.assert_close(scores(Hessian(probes=1, seed=seed), model, data)[0], expected, **EXACT)


def test_the_mean_over_all_signs_is_the_diagonal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six weights have 64 vectors of signs, and what stands off the diagonal cancels in their mean exactly."""
    torch.manual_seed(1)
    model, data = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1)).double(), pairs(2, 8, 2, 1)
    vectors = itertools.cycle(itertools.product((-1.0, 1.0), repeat=6))
    parts = iter(part for vector in vectors for part in (torch.tensor(vector[:4]).reshape(2, 2), torch.tensor([vector[4:]])))
    monkeypatch.setattr(sys.modules[Hessian.__module__], "random_signs", lambda weight, generator: next(parts).double())
    found = scores(Hessian(probes=64), model, data)
    exact = exact_diagonals(model, data)
    assert min(float(truth.min()) for truth in exact) < 0 < max(float(truth.max()) for truth in exact)
    for score, truth, layer in zip(found, exact, (model[0], model[2]), strict=True):
        torch.testing.assert_close(score, truth.clamp(min=0) * layer.weight.detach().square() / 2, **EXACT)


def test_signs_are_even_and_independent() -> None:
    """10,000 draws of 5 signs: means and products of pairs are within 5 standard deviations (0.05) of 0."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([random_signs(torch.zeros(5, dtype=torch.float64), generator) for _ in range(10_000)])
    assert drawn.abs().eq(1).all() and drawn.mean(0).abs().max() < 0.05
    assert ((drawn.T @ drawn) / 10_000 - torch.eye(5)).abs().max() < 0.05


@pytest.mark.parametrize("options", [
    {}, {"stride": 2, "padding": 1}, {"padding": 2, "dilation": 2, "groups": 2}, {"padding": 1, "padding_mode": "reflect"},
    {"padding": "same", "dilation": (1, 2)},
])
def test_wanda_on_convolutions_against_unfolded_inputs(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, (3, 2) if options.get("padding") == "same" else 3, **options).double()
    inputs = [torch.randn(2, 4, 9, 8, dtype=torch.float64) for _ in range(2)]
    sums = torch.zeros(4 * math.prod(layer.kernel_size), dtype=torch.float64)
    for x in inputs:
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        padded = nn.functional.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
        sums += unfold(padded, layer.kernel_size, layer.dilation, 0, layer.stride).square().sum((0, 2))
    norms = sums.sqrt().reshape(layer.groups, -1, *layer.kernel_size).repeat_interleave(6 // layer.groups, 0)
    torch.testing.assert_close(scores("wanda", layer, inputs, None)[0], layer.weight.detach().abs() * norms, **EXACT)


def test_wanda_on_linear_layers_that_share_a_weight() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5)).double()
    model[2].weight = model[0].weight
    inputs = torch.randn(2, 3, 5, dtype=torch.float64)
    seen = torch.cat([inputs.reshape(-1, 5), model[:2](inputs).reshape(-1, 5)])
    expected = model[0].weight.abs() * seen.norm(dim=0)
    torch.testing.assert_close(scores("wanda", model, [(inputs,)], None)[0], expected.detach(), **EXACT)


class Restless(nn.Module):
    """Dropout, batch norm, a counter, gradients held, frozen weights, a user's hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop, self.last = nn.Linear(16, 32), nn.BatchNorm1d(32), nn.Dropout(), nn.Linear(32, 16)
        self.register_buffer("runs", torch.zeros(()))
        self.calls = 0
        self.first.weight.requires_grad_(False)
        self.last.bias.grad = torch.ones(16)
        self.last.weight.grad = torch.full((16, 32), 2.0)
        self.norm.eval()
        self.hook = self.last.register_forward_hook(lambda *_: None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        return self.last(self.drop(self.norm(self.first(x)).relu())) + 0 * torch.rand(16)


def state(model: Restless) -> dict[str, Any]:
    hooks = {name: [len(module._forward_hooks), len(module._forward_pre_hooks)] for name, module in model.named_modules()}
    gradients = {name: None if value.grad is None else value.grad.tolist() for name, value in model.named_parameters()}
    after = [value._post_accumulate_grad_hooks or None for value in model.parameters()]
    return {
        "values": {name: value.tolist() for name, value in model.state_dict().items() if "weight" not in name},
        "wants": {name: value.requires_grad for name, value in model.named_parameters()}, "gradients": gradients, "hooks": hooks,
        "modes": {name: module.training for name, module in model.named_modules()}, "after": after,
        "random": torch.get_rng_state().tolist(), "grad": torch.is_grad_enabled(),
    }


def failing(model: nn.Module, batch: Any) -> torch.Tensor:
    loss = cross_entropy(model(batch), torch.zeros(len(batch), dtype=torch.long))
    if float(batch[0, 0]) > 1e5:
        raise ValueError("too large")
    return loss


@pytest.mark.parametrize("score", list(DATA_SCORES))
@pytest.mark.parametrize("disable", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_model_is_left_as_it_was(score: str, disable: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    model = Restless()
    weights = [layer.weight.clone() for layer in (model.first, model.last)]
    before, good = state(model), torch.randn(4, 16)
    torch.set_rng_state(torch.tensor(before["random"], dtype=torch.uint8))
    bad = torch.full((4, 16), 1e6)
    with disable(), pytest.raises(PruneError, match="fails on a batch: ValueError: too large"):
        prune(model, Block(8, 8), 0.5, score=score, data=[good, bad], loss=failing)
    assert state(model) == before
    assert all(torch.equal(layer.weight, kept) for layer, kept in zip((model.first, model.last), weights, strict=True))
    with disable():
        data = iter([good + 0])  # made in here: in inference mode, PyTorch won't differentiate with it
        report = prune(model, Block(8, 8), 0.5, score=score, data=data, loss=failing, scope="global")
    assert state(model) == before
    assert report.score == score and report.totals.removed == 8


def test_a_function_of_ones_own() -> None:
    torch.manual_seed(0)
    one, other = nn.Linear(32, 32), nn.Linear(32, 32)
    other.load_state_dict(one.state_dict())

    def cubes(weight: torch.Tensor) -> torch.Tensor:
        return weight.abs_().pow(3)  # in place, of a copy

    assert prune(one, Unstructured(), 0.5, score=cubes).score == "cubes"
    prune(other, Unstructured(), 0.5)
    assert torch.equal(one.weight, other.weight)


def linear() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16), nn.Linear(16, 16))


def mean(model: nn.Module, batch: Any) -> torch.Tensor:
    return model[:3](batch).square().mean()  # which leaves out the last layer


def nothing() -> Iterator[torch.Tensor]:
    yield from ()


BATCH = torch.ones(2, 16)


class Failing:
    def __iter__(self) -> Iterator[torch.Tensor]:
        yield BATCH
        raise OSError("no such file")


SPARED = {"ignore": ["3"]}


@pytest.mark.parametrize(("options", "message"), [
    *[({"score": name}, f"Score '{name}' is measured on data: give") for name in DATA_SCORES],
    ({"score": "l1", "data": [BATCH]}, "data and loss are for scores"),
    ({"score": "taylor", "data": [BATCH]}, "taylor needs a loss"),
    ({"score": "taylor", "data": [], "loss": mean}, "there is no batch in it"),
    ({"score": "hessian", "data": nothing(), "loss": mean}, "there is no batch in it"),
    ({"score": "fisher", "data": BATCH, "loss": mean}, "an iterable of batches"),
    ({"score": "wanda", "data": 3}, "an iterable of batches, .*not int"),
    ({"score": "wanda", "data": {"x": BATCH}}, "an iterable of batches, .*not dict"),
    *[({"score": name, "data": Failing(), "loss": mean, **SPARED}, f"{name}: the data fails after batch 1: OSError: no such file")
      for name in DATA_SCORES],
    *[({"score": name, "data": Failing(), "loss": mean, "scope": "sensitivity"}, "the data fails after batch 1: OSError")
      for name in ("l1", "taylor")],
    ({"score": "wanda", "data": [torch.ones(2, 5)]}, "the model can't run on a batch"),
    ({"score": "taylor", "data": [BATCH], "loss": lambda model, batch: model(batch)}, r"torch.float32 tensor of shape \(2, 16\)"),
    ({"score": "wanda", "data": [BATCH], "loss": lambda model, batch: torch.complex(mean(model, batch), mean(model, batch))},
     "one real number, not a torch.complex64"),
    ({"score": "taylor", "data": [BATCH], "loss": lambda model, batch: 3.0}, "one real number, not float"),
    ({"score": "fisher", "data": [BATCH], "loss": lambda model, batch: mean(model, batch) * math.nan}, "the loss is nan"),
    ({"score": "taylor", "data": [BATCH], "loss": lambda model, batch: mean(model, batch).detach()}, "can't be differentiated"),
    ({"score": "hessian", "data": [BATCH], "loss": lambda model, batch: mean(model, batch).detach()}, "can't be differentiated"),
    ({"score": "fisher", "data": [BATCH[0, 0]], "loss": mean}, "samples one by one"),
    *[({"score": name, "data": [BATCH], "loss": mean}, "'3'") for name in DATA_SCORES],
    ({"score": lambda weight: weight.abs()[:3]}, r"must be a tensor of the weight's shape \(16, 16\), not \(3, 16\)"),
    ({"score": lambda weight: None}, "not NoneType"),
    ({"score": lambda weight: weight}, "not negative"),
    ({"score": lambda weight: weight * math.nan}, "lie between nan"),
    ({"score": lambda weight: weight.nothing}, "The score fails on the weight of layer '0': AttributeError"),
    ({"score": lambda weight: weight.to(torch.complex64)}, "complex"),
    ({"score": lambda weight: weight.abs().to_sparse()}, "layer '0' must be real numbers in an ordinary tensor"),
    ({"score": lambda weight: weight.to("meta")}, "layer '0' must be real numbers in an ordinary tensor"),
    ({"score": 5}, "Unknown score 5"),
    ({"score": Hessian}, "Unknown score .*such as Hessian"),
])
def test_bad_requests(options: dict[str, Any], message: str) -> None:
    model = linear()
    before = [value.clone() for value in model.parameters()]
    with pytest.raises(PruneError, match=message):
        prune(model, Block(8, 8), 0.5, **options)
    assert all(torch.equal(*both) for both in zip(before, model.parameters(), strict=True))
    assert all(value.requires_grad and value.grad is None for value in model.parameters())


class Stream(IterableDataset[torch.Tensor]):
    """Samples without a length, of which a loader of batches has none that can be asked for either."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(torch.randn(8, 16, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("options", [{"score": "taylor"}, {"scope": "sensitivity"}, {"score": "wanda", "scope": "sensitivity"}])
def test_data_need_not_have_a_length(options: dict[str, Any]) -> None:
    told: list[str] = []
    streamed, listed = linear(), linear()
    prune(streamed, Block(8, 8), 0.5, data=DataLoader(Stream(), 4), loss=mean, progress=told.append, **options, **SPARED)
    prune(listed, Block(8, 8), 0.5, data=list(DataLoader(Stream(), 4)), loss=mean, **options, **SPARED)
    assert all(torch.equal(*both) for both in zip(streamed.parameters(), listed.parameters(), strict=True))
    assert any("batch 2" in text for text in told)


@pytest.mark.parametrize("options", [*[{"score": name} for name in DATA_SCORES], {"scope": "sensitivity"}])
def test_an_interruption_leaves_the_model_as_it_was(options: dict[str, Any]) -> None:
    model, calls = linear(), iter(range(9))
    before = [value.clone() for value in model.parameters()]

    def interrupted(model: nn.Module, batch: Any) -> torch.Tensor:
        if next(calls) == 3:  # in the middle: of a layer's levels, where they are measured
            raise KeyboardInterrupt
        return mean(model, batch)

    batches = [BATCH] * (2 if "scope" in options else 5)
    with pytest.raises(KeyboardInterrupt):
        prune(model.train(), Block(8, 8), 0.5, data=batches, loss=interrupted, **options, **SPARED)
    assert all(torch.equal(*both) for both in zip(before, model.parameters(), strict=True))
    assert all(value.requires_grad and value.grad is None for value in model.parameters()) and model[1].training


def test_layers_that_the_loss_leaves_out_can_be_ignored() -> None:
    for name in DATA_SCORES:
        assert prune(linear(), Block(8, 8), 0.5, score=name, data=[BATCH], loss=mean, **SPARED).totals.removed == 4


def test_two_parameters_of_one_weight_are_refused() -> None:
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    model[1].weight = nn.Parameter(model[0].weight.detach())
    with pytest.raises(PruneError, match=r"'1\.weight' hold the same numbers in two parameters"):
        prune(model, Block(8, 8), 0.5, score="taylor", data=[BATCH], loss=lambda model, batch: model(batch).mean())


def test_progress_and_probes() -> None:
    told: list[str] = []
    prune(linear(), Block(8, 8), 0.5, score=Hessian(probes=2), data=[BATCH] * 2, loss=mean, progress=told.append, **SPARED)
    assert told == ["hessian: batch 1 of 2", "hessian: batch 2 of 2"]
    assert isinstance(score_named("hessian"), DataScore)
    with pytest.raises(PruneError, match="probes"):
        Hessian(probes=0)
    for seed in (-1, 1 << 63, 0.5, "0", True):
        with pytest.raises(PruneError, match="seed"):
            Hessian(seed=seed)
    of_numpy = prune(linear(), Block(8, 8), 0.5, score=Hessian(np.int64(2), np.int64(0)), data=[BATCH], loss=mean, **SPARED)
    assert of_numpy.score == "hessian"
