"""Networks of odd sizes, and the even ones that they are compared with: ``python:odd_networks:NAME`` for ``zellige.models``.

A hundred channels are twelve and a half bands of eight rows; a map of 7 × 7 fills three vectors of sixteen and one lane. Each
stands beside the nearest size that divides evenly.
"""

from __future__ import annotations

import torch
from torch import nn

Named = tuple[nn.Module, tuple[torch.Tensor, ...]]
UNITS = 4


def channels_96() -> Named:
    """Convolutions, 3 × 3 and 1 × 1 by turns, of 96 channels on maps of 28 × 28."""
    return _channels(96)


def channels_100() -> Named:
    """The same of 100 channels."""
    return _channels(100)


def maps_8() -> Named:
    """Bottlenecks as in the later stages of ResNet-50, on maps of 8 × 8."""
    return _bottlenecks(8)


def maps_7() -> Named:
    """The same on maps of 7 × 7, where ResNet-50 has them."""
    return _bottlenecks(7)


def _channels(count: int) -> Named:
    layers = [_convolution(3, count, 3)]
    for _ in range(UNITS):
        layers += [_convolution(count, count, 3), _convolution(count, count, 1)]
    return nn.Sequential(*layers).eval(), (torch.randn(1, 3, 28, 28),)


def _bottlenecks(size: int, wide: int = 1024, narrow: int = 256) -> Named:
    layers = [_convolution(3, wide, 1)]
    for _ in range(UNITS):
        layers += [_convolution(wide, narrow, 1), _convolution(narrow, narrow, 3), _convolution(narrow, wide, 1)]
    return nn.Sequential(*layers).eval(), (torch.randn(1, 3, size, size),)


def _convolution(columns: int, rows: int, taps: int) -> nn.Module:
    """A convolution that keeps the size of its map and the scale of its values, and a ReLU."""
    layer = nn.Conv2d(columns, rows, taps, padding=taps // 2)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return nn.Sequential(layer, nn.ReLU())
