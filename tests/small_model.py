"""A small convolutional network, and the shape of what it takes."""

from __future__ import annotations

import torch
from torch import nn

SHAPE = (2, 3, 9, 11)


class Small(nn.Module):
    """Two convolutions and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.second(torch.relu(self.first(x)))).mean((2, 3)))
