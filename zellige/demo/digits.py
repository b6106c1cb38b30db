"""Handwritten digits that come with scikit-learn: 1797 images of 8×8 pixels, enlarged to 32×32."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional

SIZE = 32
CLASSES = 10
TEST_SHARE = 0.2
BRIGHTEST = 16.0


@dataclass(frozen=True)
class Split:
    """Images (samples, 1, 32, 32) in f32, standardised, and their digits."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


def load_digits() -> tuple[Split, Split]:
    """Training and test images: the same split every time, every digit equally often in both."""
    from sklearn.datasets import load_digits as bundled_digits
    from sklearn.model_selection import train_test_split

    bundle = bundled_digits()
    small = torch.from_numpy(bundle.images).float().unsqueeze(1) / BRIGHTEST
    images = functional.interpolate(small, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    images = (images - images.mean()) / images.std()
    labels = torch.from_numpy(bundle.target).long()
    train, test = train_test_split(
        torch.arange(len(labels)), test_size=TEST_SHARE, stratify=bundle.target, random_state=0
    )
    return Split(images[train], labels[train]), Split(images[test], labels[test])
