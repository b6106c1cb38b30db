"""A plain network for 32×32 images, after Simonyan and Zisserman, "Very Deep Convolutional Networks" (2014), with batch norms.

1.1 million parameters, most of them in 3×3 convolutions of 128 and 256 channels: wide enough for tiles of 64 and 128 rows, and
an order of magnitude more work than what one call of a compiled network costs besides.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

STAGES = ((64, 64), (128, 128), (256, 256))


class PlainDigitsNetwork(nn.Module):
    """Grey images (batch, 1, 32, 32) to logits (batch, 10): stages of 3×3 convolutions, with a pooling between two of them."""

    def __init__(self, stages: tuple[tuple[int, ...], ...] = STAGES, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(*_layers(stages))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(stages[-1][-1], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of ten digits."""
        return self.classifier(torch.flatten(self.pool(self.features(x)), 1))


def _layers(stages: tuple[tuple[int, ...], ...]) -> Iterator[nn.Module]:
    inputs = 1
    for number, widths in enumerate(stages):
        if number:
            yield nn.MaxPool2d(2)
        for outputs in widths:
            yield nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            yield nn.BatchNorm2d(outputs)
            yield nn.ReLU()
            inputs = outputs
