"""A small transformer that learns to write Python, trained in minutes: trained weights to try things on.

A GPT (Radford et al., 2019) over bytes: rotary positions, no biases, trained with AdamW and one cycle of the learning rate on the
modules of Python's own standard library, which every installation has. Seeded; it is trained anew each time and kept nowhere.
"""

from __future__ import annotations

import math
import sysconfig
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as functional
from torch import nn

WIDTH, LAYERS, HEADS, CONTEXT, BATCH = 192, 3, 6, 128, 16
STEPS, LEARNING_RATE = 600, 3e-3
HELD_OUT = 0.05  # share of the text, from its end, that is only tested on


class Layer(nn.Module):
    """Attention and a feed-forward network, each normalised before and added after."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.feed_forward_norm = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
        """(batch, positions, width) to the same."""
        y = self.attention_norm(x)
        query, key, value = (make(y).unflatten(2, (HEADS, -1)).transpose(1, 2) for make in (self.query, self.key, self.value))
        mixed = functional.scaled_dot_product_attention(_turned(query, turns), _turned(key, turns), value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.feed_forward_norm(x))))


class ByteGPT(nn.Module):
    """Bytes (batch, positions) to logits of the next (batch, positions, 256)."""

    turns: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm = nn.Embedding(256, WIDTH), nn.RMSNorm(WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.logits = nn.Linear(WIDTH, 256, bias=False)
        half = WIDTH // HEADS // 2
        angles = torch.arange(CONTEXT)[:, None] * 1e4 ** (-torch.arange(half) / half)
        self.register_buffer("turns", torch.stack([angles.cos(), angles.sin()]), persistent=False)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Logits after every byte."""
        x, turns = self.embedding(text), self.turns[:, : text.shape[1]]
        for layer in self.layers:
            x = layer(x, turns)
        return self.logits(self.norm(x))


def _turned(heads: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Heads (batch, heads, positions, size), each pair of numbers turned by an angle that grows with the position."""
    one, other = heads.chunk(2, dim=-1)
    cosines, sines = turns
    return torch.cat([one * cosines - other * sines, one * sines + other * cosines], dim=-1)


def python_sources() -> tuple[torch.Tensor, torch.Tensor]:
    """Python's own modules as bytes, one after the other by name: to train on, and held out."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    text = torch.frombuffer(bytearray(b"".join(file.read_bytes() for file in files)), dtype=torch.uint8)
    held = round(HELD_OUT * len(text))
    return text[:-held], text[-held:]


def train_byte_gpt(after_step: Callable[[int, float], None] = lambda step, loss: None, steps: int = STEPS) -> ByteGPT:
    """A model trained from the same start on the same text each time."""
    torch.manual_seed(0)
    text, model = python_sources()[0], ByteGPT()
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=LEARNING_RATE, total_steps=steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        starts = torch.randint(len(text) - CONTEXT, (BATCH,), generator=generator)
        some = torch.stack([text[start : start + CONTEXT + 1] for start in starts.tolist()]).long()
        loss = functional.cross_entropy(model(some[:, :-1]).flatten(0, 1), some[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        cycle.step()
        after_step(step + 1, loss.item())
    return model.eval()


def bits_per_byte(model: ByteGPT, windows: int = 200) -> float:
    """On held-out text; 8 for a model that knows nothing."""
    text = python_sources()[1]
    spots = torch.linspace(0, len(text) - CONTEXT - 1, windows).long()
    some = torch.stack([text[spot : spot + CONTEXT + 1] for spot in spots.tolist()]).long()
    with torch.no_grad():
        losses = [functional.cross_entropy(model(part[:, :-1]).flatten(0, 1), part[:, 1:].flatten()) for part in some.split(BATCH)]
    return float(torch.stack(losses).mean()) / math.log(2)
