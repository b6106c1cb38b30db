"""Small networks and steps for the tests of training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from zellige.patterns import parse_pattern
from zellige.train import OptimizerOptions, Recipe
from zellige.train.choice import Choice, Sparsity, Wish
from zellige.train.log import Moment
from zellige.train.schemes import Scheme
from zellige.train.sparsifier import Sparsifier
from zellige.train.training import SparseTraining

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-2),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1, amsgrad=True),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.05),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01, momentum=0.5, centered=True),
}


class Perceptron(nn.Module):
    """Layer norms and linear layers: nothing depends on how a batch is shared out."""

    def __init__(self, inputs: int = 16, width: int = 32, classes: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width), nn.GELU())
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x.flatten(1)))


def batch(step: int, samples: int = 8, inputs: int = 16, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Something to learn: the class is a linear function of the input."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(samples, inputs, generator=generator)
    truth = torch.randn(inputs, classes, generator=torch.Generator().manual_seed(99))
    return x, (x @ truth).argmax(1)


def loss_of(model: nn.Module, step: int) -> torch.Tensor:
    x, y = batch(step)
    return nn.functional.cross_entropy(model(x), y)


def half_masks(model: nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random masks, half of every matrix."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(parameter.shape, generator=generator) < 0.5
            for name, parameter in model.named_parameters() if parameter.dim() > 1}


def step_once(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    optimizer.zero_grad()
    loss_of(model, step).backward()
    optimizer.step()


def assert_exact_zeros(sparsifier: Sparsifier, model: nn.Module | None = None) -> None:
    """Zero where masks say so, +0 to the bit, and elsewhere not all of it."""
    parameters = dict((model or sparsifier.model).named_parameters())
    for name, mask in sparsifier.masks.items():
        weight = next(parameter.detach() for key, parameter in parameters.items() if key.endswith(name))
        assert bool((weight[~mask].view(torch.int32) == 0).all()), name
        assert bool((weight[mask] != 0).any()), name


def training_of(
    scheme: Scheme, pattern: str | None = "block:4x4", sparsity: Sparsity = 0.5, steps: int = 20, optimizer: str = "adamw",
) -> SparseTraining:
    torch.manual_seed(0)
    model = Perceptron()
    choice = None if pattern is None else Choice(model, Wish(parse_pattern(pattern), sparsity))
    return SparseTraining(model, scheme, choice, OPTIMIZERS[optimizer](model.parameters()), steps)


def train(training: SparseTraining, until: int | None = None, check: Callable[[], None] = lambda: None) -> None:
    """Steps of a run that has begun, up to ``until`` or the last."""
    while training.step < (until or training.steps):
        training.optimizer.zero_grad()
        loss_of(training.model, training.step).backward()
        training.before_step()
        training.optimizer.step()
        training.after_step()
        check()


SAMPLES = [(x, y) for x, y in zip(*batch(0, samples=96), strict=True)]
TEST = [(x, y) for x, y in zip(*batch(1, samples=40), strict=True)]


class Droopy(Perceptron):
    """With dropout and a batch norm: randomness and buffers that a checkpoint must account for."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 32), nn.ReLU())


def network() -> nn.Module:
    torch.manual_seed(0)
    return Droopy()


def recipe(scheme: Scheme | str = "fixed", **changes: object) -> Recipe:
    options = {"pattern": "block:4x4", "sparsity": 0.5, "steps": 20, "batch": 16, "evaluate_every": 6, "checkpoint_every": 4,
               "optimizer": OptimizerOptions(learning_rate=1e-2)} | changes
    return Recipe(scheme=scheme, **options)  # type: ignore[arg-type]


def quiet(moment: Moment) -> None:
    pass


def same(left: nn.Module, right: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left.state_dict().values(), right.state_dict().values(), strict=True))
