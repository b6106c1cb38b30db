"""Handwritten digits that come with scikit-learn: 1797 images of 8×8 pixels, enlarged to 32×32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as functional

from zellige.errors import TrainingError
from zellige.train.data.samples import Data, Samples

SIZE = 32
CLASSES = 10
FOLDS = 5
BRIGHTEST = 16.0
SHIFT = 3


@dataclass(frozen=True)
class Split(Samples):
    """Images (samples, 1, 32, 32) in f32, standardised, and their digits; varied by moving a batch a little."""

    images: torch.Tensor
    labels: torch.Tensor
    shift: int = SHIFT

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, numbers: Sequence[int], seed: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.as_tensor(numbers)
        images, labels = self.images[chosen], self.labels[chosen]
        return (images if seed is None else shifted(images, self.shift, torch.Generator().manual_seed(seed))), labels


@dataclass(frozen=True)
class Digits:
    """Options of ``digits``: which fifth of the images is kept for validation, every digit equally often in all of them."""

    fold: int = 0

    def load(self, path: str) -> Data:
        """The digits; there is no path to them.

        Raises:
            TrainingError: there is one, or the fold is none of 0 to 4.
        """
        if path:
            raise TrainingError(f"digits come with scikit-learn, not from a path such as {path!r}")
        if self.fold not in range(FOLDS):
            raise TrainingError(f"fold must be 0 to {FOLDS - 1}, not {self.fold!r}")
        training, validation = load_digits(self.fold)
        return Data("digits", training, validation)


def load_digits(fold: int = 0) -> tuple[Split, Split]:
    """Training and validation images of one of five folds, which are the same every time."""
    from sklearn.model_selection import StratifiedKFold

    images, labels = all_digits()
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(labels, labels)
    training, validation = (torch.from_numpy(numbers) for numbers in list(folds)[fold])
    return Split(images[training], labels[training]), Split(images[validation], labels[validation])


def all_digits() -> tuple[torch.Tensor, torch.Tensor]:
    """All 1797 images, enlarged and standardised, and their digits."""
    from sklearn.datasets import load_digits as bundled_digits

    bundle = bundled_digits()
    small = torch.from_numpy(bundle.images).float().unsqueeze(1) / BRIGHTEST
    images = functional.interpolate(small, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    return (images - images.mean()) / images.std(), torch.from_numpy(bundle.target).long()


def shifted(images: torch.Tensor, most: int, generator: torch.Generator) -> torch.Tensor:
    """Images moved by up to ``most`` pixels each way, the same for one batch; their edge is repeated."""
    padded = functional.pad(images, (most,) * 4, mode="replicate")
    top, left = torch.randint(0, 2 * most + 1, (2,), generator=generator).tolist()
    return padded[..., top : top + images.shape[-2], left : left + images.shape[-1]]
