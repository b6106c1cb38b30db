"""Networks for GPUs: BERT (Devlin et al., 2018) and ResNet-18 (He et al., 2016) in plain modules of PyTorch's; random weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

BATCH, SEQUENCE, WORDS = 64, 128, 30522


class Layer(nn.Module):
    """Attention and a feed-forward network, each added to its input and then normalised."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.attention_norm, self.norm = nn.LayerNorm(width, eps=1e-12), nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [made(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for made in (self.query, self.key, self.value)]
        mixed = functional.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
        x = self.attention_norm(x + self.out(mixed))
        return self.norm(x + self.down(functional.gelu(self.up(x))))


class Bert(nn.Module):
    """Words (batch, sequence) to features (batch, sequence, width)."""

    def __init__(self, layers: int = 12, width: int = 768, heads: int = 12, hidden: int = 3072, words: int = WORDS) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(512, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.encoder = nn.Sequential(*(Layer(width, heads, hidden) for _ in range(layers)))

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return self.encoder(self.norm(self.words(text) + self.places.weight[:text.shape[1]]))


def bert_base() -> tuple[nn.Module, tuple[torch.Tensor]]:
    """For ``zellige bench python:gpu_models:bert_base --target cuda``."""
    return Bert(), (torch.randint(WORDS, (BATCH, SEQUENCE)),)


def bert_small() -> tuple[nn.Module, tuple[torch.Tensor]]:
    """The same of one narrow layer: compiled in seconds, too small to gain much."""
    return Bert(1, 256, 4, 512, 100), (torch.randint(100, (16, SEQUENCE)),)


class Block(nn.Module):
    """Of a ResNet-18: two convolutions with batch norms beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.first, self.second = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(self.two(functional.relu(self.first(self.one(x)))))
        return functional.relu(y + self.shortcut(x))


def residual_network(classes: int = 1000) -> nn.Module:
    """ResNet-18 (He et al., 2016)."""
    widths = (64, 128, 256, 512)
    blocks = [block for before, width in zip((64, *widths), widths, strict=False)
              for block in (Block(before, width, 1 if width == 64 else 2), Block(width, width, 1))]
    return nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1), *blocks,
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))
