"""The demonstration's parts: real images, a loop that learns, zeros that stay."""

import pytest
import torch

from zellige.demo.digits import CLASSES, SIZE, Split, load_digits
from zellige.demo.network import DigitsNetwork
from zellige.demo.training import SHIFT, Schedule, accuracy, shifted, train
from zellige.train.sparsifier import zero_masks


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


def test_a_small_network_learns_and_its_zeros_stay(digits: tuple[Split, Split]) -> None:
    training, test = digits
    torch.manual_seed(0)
    model = DigitsNetwork(widths=(16, 16))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 4:
                parameter[::2, : (parameter.shape[1] + 1) // 2] = 0
    masks = zero_masks(model)
    assert set(masks) == {name for name, parameter in model.named_parameters() if parameter.dim() == 4}
    steps: list[tuple[int, int]] = []
    small = Split(training.images[:, :, ::2, ::2], training.labels)
    train(model, small, Schedule(epochs=6, learning_rate=1e-2), masks, after_step=lambda *step: steps.append(step))
    assert not model.training
    assert steps[-1] == (132, 132) and len(steps) == 132
    for name, parameter in model.named_parameters():
        if name in masks:
            assert bool((parameter[~masks[name]] == 0).all()) and bool((parameter[masks[name]] != 0).all())
    found = accuracy(model, Split(test.images[:, :, ::2, ::2], test.labels), batch=100)
    assert found > 0.7


def test_without_masks_zeros_come_back(digits: tuple[Split, Split]) -> None:
    model = DigitsNetwork(widths=(8,))
    with torch.no_grad():
        model.stem.weight[:, :, 0].zero_()
    train(model, Split(digits[0].images[:64], digits[0].labels[:64]), Schedule(epochs=2, learning_rate=1e-2))
    assert bool((model.stem.weight[:, :, 0] != 0).any())


def test_accuracy_counts_right_answers() -> None:
    split = Split(torch.zeros(5, 1, 2, 2), torch.tensor([0, 1, 2, 3, 4]))
    assert accuracy(lambda images: torch.eye(5)[torch.zeros(len(images), dtype=torch.long)], split, batch=2) == 0.2


def test_shifts_move_and_repeat_the_edge() -> None:
    images = torch.arange(49.0).reshape(1, 1, 7, 7)
    generator = torch.Generator().manual_seed(0)
    seen = {tuple(shifted(images, generator)[0, 0, SHIFT].tolist()) for _ in range(400)}
    assert len(seen) == (2 * SHIFT + 1) ** 2
    assert tuple(images[0, 0, SHIFT].tolist()) in seen
