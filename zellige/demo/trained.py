"""Networks trained on the bundled digits, and what a study asks about them, for the command line and for benchmarks:

    zellige prune python:zellige.demo.trained:residual --compare --evaluate zellige.demo.trained:evaluate

Training is seeded and takes a minute or several on two cores; ``zellige prune … -o`` and ``--weights`` keep what it gave.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from zellige.demo.digits import Split, load_digits
from zellige.demo.network import DigitsNetwork
from zellige.demo.plain_network import PlainDigitsNetwork
from zellige.demo.training import Schedule, accuracy, train
from zellige.prune.calibration import Loss
from zellige.prune.statistics import take_statistics

TRAINING = Schedule(epochs=6, learning_rate=3e-3)
TEST_BATCH = 360
CALIBRATION, BATCH = 256, 64  # training images that scores are measured on, and how many at a time

Trained = tuple[nn.Module, tuple[torch.Tensor, ...]]


def residual(seed: int = 0) -> Trained:
    """The demonstration's residual network, trained, and one test image."""
    return trained(DigitsNetwork, seed)


def plain(seed: int = 0) -> Trained:
    """The plain network, trained, and one test image."""
    return trained(PlainDigitsNetwork, seed)


def trained(make: type[nn.Module], seed: int = 0, schedule: Schedule = TRAINING) -> Trained:
    """A network with weights drawn and images shuffled by ``seed``, in evaluation mode; PyTorch's random state is as before."""
    training, test = digits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
        train(model, training, schedule, seed=seed)
    return model, (test.images[:1],)


def evaluate(model: nn.Module) -> float:
    """Share of the 360 test images that are named rightly."""
    return accuracy(model, digits()[1], TEST_BATCH)


def retake(model: nn.Module) -> None:
    """Take the statistics of batch norms again, from the same images that scores are measured on."""
    take_statistics(model, batches(), loss)


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Training images with their digits, for scores that are measured."""
    training, _ = digits()
    return list(zip(training.images[:CALIBRATION].split(BATCH), training.labels[:CALIBRATION].split(BATCH), strict=True))


def loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """The mean cross-entropy of a batch."""
    images, labels = batch
    return cross_entropy(model(images), labels)


def calibration() -> tuple[list[tuple[torch.Tensor, torch.Tensor]], Loss]:
    """Batches and loss together, as ``--data`` takes them."""
    return batches(), loss


@cache
def digits() -> tuple[Split, Split]:
    """Training and test images, read once."""
    return load_digits()
