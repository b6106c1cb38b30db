"""The networks of ``accuracy.py``: two for digits, of more than a million parameters each, and a small GPT for bytes."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import nn

from zellige.demo.network import ResidualBlock

CLASSES, BYTES = 10, 256


def residual(widths: tuple[int, ...] = (64, 128, 256)) -> nn.Module:
    """A residual network after He et al. (2015), a block to a stage, its stem at a stride of 2: 1.2 million parameters."""
    inputs, strides = (widths[0], *widths[:-1]), (1, *[2] * (len(widths) - 1))
    return nn.Sequential(
        nn.Conv2d(1, widths[0], 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(),
        *(ResidualBlock(*shape) for shape in zip(inputs, widths, strides, strict=True)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], CLASSES))  # fmt: skip


def vgg(widths: tuple[int, ...] = (64, 128, 256)) -> nn.Module:
    """Pairs of 3×3 convolutions with pooling between, after Simonyan & Zisserman (2014), with norms: 1.2 million parameters."""
    layers: list[nn.Module] = [nn.Conv2d(1, widths[0], 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    inputs = widths[0]
    for width in widths:
        for _ in range(2):
            layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            inputs = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, CLASSES))


class Layer(nn.Module):
    """Attention to what came before, then two linear layers, each beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first_norm, self.second_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, bytes, width) to the same."""
        parts = self.attend(self.first_norm(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.project(seen.transpose(1, 2).flatten(2))
        return x + self.narrow(functional.gelu(self.widen(self.second_norm(x))))


class SmallGPT(nn.Module):
    """Bytes (batch, length) to logits (batch, length, 256): 2.8 million parameters, of which layers hold 2.7."""

    def __init__(self, width: int = 192, depth: int = 6, heads: int = 6, longest: int = 128) -> None:
        super().__init__()
        self.bytes, self.places = nn.Embedding(BYTES, width), nn.Embedding(longest, width)
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, BYTES)
        self.apply(_begin_small)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of the byte after each."""
        places = torch.arange(x.shape[1], device=x.device)
        return self.head(self.norm(self.layers(self.bytes(x) + self.places(places))))


def _begin_small(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
