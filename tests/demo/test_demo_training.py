"""The demonstration's parts: real images, and a loop that learns."""

import pytest
import torch

from zellige.demo.digits import CLASSES, SIZE, Split, load_digits
from zellige.demo.network import DigitsNetwork
from zellige.demo.training import Schedule, accuracy, train


@pytest.fixture(scope="module")
def digits() -> tuple[Split, Split]:
    return load_digits()


def test_the_split_is_whole_disjoint_and_the_same_every_time(digits: tuple[Split, Split]) -> None:
    training, test = digits
    assert (len(training), len(test)) == (1437, 360)
    assert training.images.shape == (1437, 1, SIZE, SIZE)
    assert torch.equal(load_digits()[1].images, test.images)
    everything = torch.cat([training.images, test.images])
    assert abs(everything.mean()) < 1e-4 and abs(everything.std() - 1) < 1e-4
    counts = torch.bincount(test.labels, minlength=CLASSES)
    assert counts.min() >= 34 and counts.max() <= 38


def test_a_small_network_learns(digits: tuple[Split, Split]) -> None:
    training, test = digits
    torch.manual_seed(0)
    model = DigitsNetwork(widths=(16, 16))
    train(model, Split(training.images[:, :, ::2, ::2], training.labels), Schedule(epochs=6, learning_rate=1e-2))
    assert not model.training
    assert accuracy(model, Split(test.images[:, :, ::2, ::2], test.labels), batch=100) > 0.7


def test_accuracy_counts_right_answers() -> None:
    split = Split(torch.zeros(5, 1, 2, 2), torch.tensor([0, 1, 2, 3, 4]))
    assert accuracy(lambda images: torch.eye(5)[torch.zeros(len(images), dtype=torch.long)], split, batch=2) == 0.2
