"""The split of scikit-learn's handwritten digits that the demonstration and its trained networks go by."""

from __future__ import annotations

import torch

from zellige.train.data.digits import CLASSES, SIZE, Split, all_digits

__all__ = ["CLASSES", "SIZE", "Split", "load_digits"]

TEST_SHARE = 0.2


def load_digits() -> tuple[Split, Split]:
    """Training and test images: the same split every time, every digit equally often in both."""
    from sklearn.model_selection import train_test_split

    images, labels = all_digits()
    train, test = train_test_split(torch.arange(len(labels)), test_size=TEST_SHARE, stratify=labels.numpy(), random_state=0)
    return Split(images[train], labels[train]), Split(images[test], labels[test])
