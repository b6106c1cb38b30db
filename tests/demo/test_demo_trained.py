"""Trained networks for studies: the same every time, PyTorch's random state as before, and functions that fit ``zl.prune``."""

import pytest
import torch
from torch import nn

import zellige as zl
from zellige.demo import trained
from zellige.demo.digits import Split
from zellige.demo.network import DigitsNetwork
from zellige.demo.plain_network import PlainDigitsNetwork
from zellige.demo.training import Schedule


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm, self.classifier = nn.Conv2d(1, 16, 3, stride=4), nn.BatchNorm2d(16), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.relu(self.norm(self.convolution(x))).mean((2, 3)))


def test_training_is_seeded_and_leaves_the_random_state(monkeypatch: pytest.MonkeyPatch) -> None:
    few = tuple(Split(split.images[:64], split.labels[:64]) for split in trained.digits())
    monkeypatch.setattr(trained, "digits", lambda: few)
    before = torch.random.get_rng_state()
    schedule = Schedule(epochs=1, learning_rate=3e-3, batch=32)
    (first, inputs), (second, _), (other, _) = (trained.trained(Tiny, seed, schedule) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before) and inputs[0].shape == (1, 1, 32, 32) and not first.training
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert 0 <= trained.evaluate(first) <= 1


def test_the_functions_fit_a_study() -> None:
    batches, loss = trained.calibration()
    assert [len(labels) for _, labels in batches] == [64] * 4 and loss is trained.loss
    found = zl.compare(Tiny().eval(), ["block:8x8"], [0.25], timed=(), criteria=["taylor"], data=batches, loss=trained.loss,
                       targets=["classifier"], recover=trained.retake)  # fmt: skip
    assert found.rows[0].layers == 1


def test_networks_are_what_they_say() -> None:
    for make, parameters in ((DigitsNetwork, 308_074), (PlainDigitsNetwork, 1_147_722)):
        model = make().eval()
        assert sum(parameter.numel() for parameter in model.parameters()) == parameters
        with torch.no_grad():
            assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
