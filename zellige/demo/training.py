"""A plain training loop: AdamW, one cycle of the learning rate, images shifted a little; zeros can be held at zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as functional

from zellige.demo.digits import Split

SHIFT = 3
AfterStep = Callable[[int, int], None]


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


def train(
    model: torch.nn.Module,
    split: Split,
    schedule: Schedule,
    keep_zero: Mapping[str, torch.Tensor] | None = None,
    seed: int = 0,
    after_step: AfterStep = lambda done, of: None,
) -> None:
    """Train in place and leave the model in eval mode.

    ``keep_zero`` holds masks by parameter name; after every step, weights outside their mask are zero again.
    """
    steps = schedule.steps(len(split))
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=schedule.weight_decay)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=schedule.learning_rate, total_steps=steps)
    masks = {dict(model.named_parameters())[name]: mask for name, mask in (keep_zero or {}).items()}
    generator = torch.Generator().manual_seed(seed)
    model.train()
    order = torch.empty(0, dtype=torch.long)
    for step in range(steps):
        if len(order) < schedule.batch:
            order = torch.randperm(len(split), generator=generator)
        chosen, order = order[: schedule.batch], order[schedule.batch :]
        logits = model(shifted(split.images[chosen], generator))
        loss = functional.cross_entropy(logits, split.labels[chosen], label_smoothing=schedule.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cycle.step()
        with torch.no_grad():
            for parameter, mask in masks.items():
                parameter.mul_(mask)
        after_step(step + 1, steps)
    model.eval()


def shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images moved by up to ``SHIFT`` pixels each way, the same for one batch; their edge is repeated."""
    padded = functional.pad(images, (SHIFT,) * 4, mode="replicate")
    top, left = torch.randint(0, 2 * SHIFT + 1, (2,), generator=generator).tolist()
    return padded[..., top : top + images.shape[-2], left : left + images.shape[-1]]


def accuracy(answer: Callable[[torch.Tensor], torch.Tensor], split: Split, batch: int) -> float:
    """Share of images whose largest logit is the right digit; ``answer`` sees ``batch`` images at a time."""
    right = 0
    with torch.no_grad():
        for images, labels in zip(split.images.split(batch), split.labels.split(batch), strict=True):
            right += int((answer(images).argmax(1) == labels).sum())
    return right / len(split)
