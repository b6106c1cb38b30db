"""Small networks of the kinds that compile for GPUs: transformer blocks of several styles, and convolutional ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

Inputs = tuple[torch.Tensor, ...]


class Encoder(nn.Module):
    """A block as in BERT: attention and feed-forward, each added and then normalised."""

    def __init__(self, width: int = 32, heads: int = 2, hidden: int = 48) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [made(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for made in (self.query, self.key, self.value)]
        mixed = functional.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
        x = self.first(x + self.out(mixed))
        return self.second(x + self.down(functional.gelu(self.up(x))))


class Decoder(nn.Module):
    """Causal, normalised beforehand, without biases, gated by SiLU, over whole numbers; a dict comes out."""

    def __init__(self, width: int = 32, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.embedding, self.norm = heads, nn.Embedding(10, width), nn.LayerNorm(width, bias=False)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = nn.Linear(width, 2 * width, bias=False), nn.Linear(width, 2 * width, bias=False)
        self.down, self.logits = nn.Linear(2 * width, width, bias=False), nn.Linear(width, 10)

    def forward(self, text: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.embedding(text)
        y = self.norm(x)
        parts = [made(y).unflatten(2, (self.heads, -1)).transpose(1, 2) for made in (self.query, self.key, self.value)]
        mixed = functional.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        y = self.norm(x)
        x = self.down(functional.silu(self.gate(y)) * self.up(y)) + x
        return {"logits": self.logits(x), "last": x[:, -1]}


class Residual(nn.Module):
    """As a ResNet: convolutions with batch norms, a shortcut, pooling, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, bias=False)
        self.one, self.two = (nn.Conv2d(16, 16, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(16) for _ in range(3))
        self.head = nn.Linear(16, 20)
        for norm in self.norms:
            nn.init.uniform_(norm.running_var, 0.5, 2.0)  # type: ignore[arg-type]
            nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(functional.relu(self.norms[0](self.stem(x)), inplace=True), 2)
        y = functional.relu(self.norms[1](self.one(x)))
        x = functional.relu(x + self.norms[2](self.two(y)))
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Bottleneck(nn.Module):
    """As in a ResNet-50: 1 × 1, 3 × 3 and 1 × 1 beside a shortcut with a stride; before it a stem with a bias, behind it groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, (1, 3), padding=(0, 1))
        self.down, self.middle = nn.Conv2d(24, 16, 1, bias=False), nn.Conv2d(16, 16, 3, 2, 2, 2, bias=False)
        self.up, self.shortcut = nn.Conv2d(16, 32, 1, bias=False), nn.Conv2d(24, 32, 1, 2, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in (16, 16, 32, 32))
        self.groups = nn.Conv2d(32, 32, 3, groups=4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.silu(self.stem(x))
        y = functional.relu(self.norms[0](self.down(x)))
        y = functional.relu(self.norms[1](self.middle(y)))
        x = self.norms[3](self.shortcut(x))
        x = functional.relu(self.norms[2](self.up(y)) + x)
        return functional.relu(self.groups(x)).mean((2, 3))


class Perceptron(nn.Module):
    """Linear layers with every activation, one of them read twice, a chain of two without one; several results, nested."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(24, 24) for _ in range(5))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        one = functional.relu(self.layers[0](x))
        two = functional.gelu(self.layers[1](one) + y)
        three = self.layers[2](two)
        return three, [functional.silu(self.layers[4](self.layers[3](one))) + two, one + three]


def pruned(model: nn.Module) -> nn.Module:
    """Rows gone, and columns, other ones in each half of the rest."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            generator = torch.Generator().manual_seed(len(name))
            rows, columns = module.weight.shape
            kept = torch.rand(rows, 1, generator=generator) < 0.8
            halves = (torch.rand(2, columns, generator=generator) < 0.6).repeat_interleave(-(-rows // 2), 0)[:rows]
            with torch.no_grad():
                module.weight *= kept & halves
    return model.eval()


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Inputs]]] = {
    "encoder": lambda: (Encoder(), (torch.randn(2, 5, 32),)),
    "decoder": lambda: (Decoder(), (torch.randint(10, (2, 7)),)),
    "residual": lambda: (Residual(), (torch.randn(2, 3, 10, 12),)),
    "perceptron": lambda: (Perceptron(), (torch.randn(3, 24), torch.randn(3, 24))),
}


def network(name: str) -> tuple[nn.Module, Inputs]:
    torch.manual_seed(0)
    model, inputs = NETWORKS[name]()
    return pruned(model), inputs
