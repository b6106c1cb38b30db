"""A plain training loop for dense networks: AdamW, one cycle of the learning rate, images shifted a little.

``zl.finetune`` does the same and more. This loop stays as it is because what the studies of ``docs`` say is about networks that it
trained: another order of samples would give other networks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as functional

from zellige.demo.digits import Split
from zellige.train.data.digits import shifted


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: passes over the images, samples per step, peak learning rate."""

    epochs: int
    learning_rate: float
    batch: int = 64
    weight_decay: float = 1e-2
    label_smoothing: float = 0.05

    def steps(self, samples: int) -> int:
        return self.epochs * (samples // self.batch)


def train(model: torch.nn.Module, split: Split, schedule: Schedule, seed: int = 0) -> None:
    """Train in place and leave the model in eval mode."""
    steps = schedule.steps(len(split))
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=schedule.weight_decay)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=schedule.learning_rate, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < schedule.batch:
            order = torch.randperm(len(split), generator=generator)
        chosen, order = order[: schedule.batch], order[schedule.batch :]
        logits = model(shifted(split.images[chosen], split.shift, generator))
        loss = functional.cross_entropy(logits, split.labels[chosen], label_smoothing=schedule.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cycle.step()
    model.eval()


def accuracy(answer: Callable[[torch.Tensor], torch.Tensor], split: Split, batch: int) -> float:
    """Share of images whose largest logit is the right digit; ``answer`` sees ``batch`` images at a time."""
    right = 0
    with torch.no_grad():
        for images, labels in zip(split.images.split(batch), split.labels.split(batch), strict=True):
            right += int((answer(images).argmax(1) == labels).sum())
    return right / len(split)
