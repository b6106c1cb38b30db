"""What can be trained on: samples by number, a batch at a time, and the order in which they come.

Which samples a step sees, and how they are varied, is a function of the seed and the number of the step alone. So a run that is
taken up again goes on with what comes next, workers that fetch ahead change nothing, and several processes see the parts of what
one would see.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch.utils.data import Dataset, default_collate

from zellige.errors import FAILURES, TrainingError, ZelligeError, in_one_line

Key = tuple[list[int], int | None]
"""Which samples, and the seed by which they are varied; None leaves them as they are."""


class Samples(ABC):
    """Samples with numbers from 0. A batch is a pair of inputs and labels, or a dict, whose tensors have one row per sample."""

    @abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @abstractmethod
    def batch(self, numbers: Sequence[int], seed: int | None) -> Any:
        """Some of them, varied by the seed, or as they are without one: the same arguments give the same batch."""

    def __getitem__(self, key: Key) -> Any:
        """A batch by its key, as loaders ask for it."""
        return self.batch(*key)


@dataclass(frozen=True)
class DatasetSamples(Samples):
    """Any dataset that has a length and gives samples by number; what it draws at random follows the seed."""

    dataset: Dataset[Any]
    collate: Any = default_collate

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def batch(self, numbers: Sequence[int], seed: int | None) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0 if seed is None else seed)
            rows = [self._sample(number) for number in numbers]
            try:
                return self.collate(rows)
            except FAILURES as error:
                raise TrainingError(f"samples can't be put into a batch: {in_one_line(error)}; give tensors or numbers, alike in "
                                    "all samples") from error

    def _sample(self, number: int) -> Any:
        try:
            return self.dataset[number]
        except ZelligeError:
            raise
        except Exception as error:  # whatever the user's code raises
            raise TrainingError(f"the dataset fails to give sample {number}: {in_one_line(error)}") from error


@dataclass(frozen=True)
class Data:
    """What to learn from, and what to measure by; ``bits`` if the loss is worth showing in bits per byte."""

    name: str
    training: Samples
    validation: Samples | None = None
    bits: bool = False


def seed_of(*numbers: int) -> int:
    """A seed that depends on all of the numbers.

    >>> seed_of(0, 1) == seed_of(0, 1) != seed_of(1, 0)
    True
    """
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=7).digest()
    return int.from_bytes(digest, "little")


@lru_cache(maxsize=2)
def _shuffled(samples: int, seed: int) -> list[int]:
    numbers: list[int] = torch.randperm(samples, generator=torch.Generator().manual_seed(seed)).tolist()
    return numbers


def steps_per_epoch(samples: int, batch: int) -> int:
    """Whole batches in one pass; the samples that are left over differ from pass to pass.

    Raises:
        TrainingError: there is none.
    """
    if samples < batch:
        raise TrainingError(f"a batch of {batch} needs as many samples, and there are {samples}; lower batch")
    return samples // batch


def numbers_at(step: int, samples: int, batch: int, seed: int) -> list[int]:
    """The samples of a step: every pass goes through them in an order of its own.

    >>> sorted(numbers_at(0, 4, 2, 7) + numbers_at(1, 4, 2, 7))
    [0, 1, 2, 3]
    """
    epoch, at = divmod(step, steps_per_epoch(samples, batch))
    return _shuffled(samples, seed_of(seed, epoch))[at * batch:(at + 1) * batch]


def part_of(numbers: Sequence[int], part: int, parts: int) -> list[int]:
    """One of several parts of equal length.

    >>> part_of([3, 1, 2, 0], 1, 2)
    [2, 0]
    """
    length = len(numbers) // parts
    return list(numbers[part * length:(part + 1) * length])
