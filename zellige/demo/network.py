"""A residual network for 32×32 images, after He et al., "Deep Residual Learning for Image Recognition" (2015).

A stem and three stages of one residual block each, 32 to 128 channels: wide enough that 8×8 blocks make sense, small
enough to train in a minute on two cores.
"""

from __future__ import annotations

import torch
from torch import nn

WIDTHS = (32, 64, 128)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut, which is a 1×1 convolution where shapes change."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, inputs, height, width) to (batch, outputs, height / stride, width / stride)."""
        y = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(y)) + self.shortcut(x))


class DigitsNetwork(nn.Module):
    """Grey images (batch, 1, 32, 32) to logits (batch, 10)."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, widths[0], 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(widths[0])
        inputs, strides = (widths[0], *widths[:-1]), (1, *[2] * (len(widths) - 1))
        self.stages = nn.Sequential(
            *(ResidualBlock(*shape) for shape in zip(inputs, widths, strides, strict=True))
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of ten digits."""
        x = self.stages(torch.relu(self.stem_norm(self.stem(x))))
        return self.classifier(torch.flatten(self.pool(x), 1))
