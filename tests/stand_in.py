"""A stand-in for the compiled network: PyTorch behind the engine's interface, to test what is built around it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn


@dataclass(frozen=True)
class StaticRow:
    name: str
    op: str
    pattern: str
    density: float
    path: str
    reason: str


@dataclass(frozen=True)
class TimedRow:
    name: str
    op: str
    pattern: str
    density: float
    path: str
    reason: str
    microseconds: float
    gflops: float
    peak_share: float


@dataclass(frozen=True)
class StandInProfile:
    rows: tuple[TimedRow, ...]
    peak_gflops: float = 250.0

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    def __str__(self) -> str:
        return "\n".join(f"{row.name} {row.path} {row.reason}" for row in self.rows)


class StandInEngine:
    """Answers like the model, plus ``error`` (relative to the largest output)."""

    compile_seconds = 0.25
    batch = ""
    layers = (StaticRow("conv", "conv2d", "8x8 blocks", 0.5, "band", "half of the blocks are zero"),)

    def __init__(self, model: nn.Module, error: float = 0.0) -> None:
        self.model, self.error, self.calls = model, error, 0

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        self.calls += 1
        with torch.no_grad():
            answer = self.model(*map(torch.from_numpy, arrays)).numpy()
        return answer + np.float32(self.error * np.abs(answer).max())

    def profile(self) -> StandInProfile:
        return StandInProfile((TimedRow("conv", "conv2d", "block:8x8", 0.5, "band", "half is zero", 12.5, 180.0, 0.7),))

    def save(self, path: Path) -> None:
        Path(path).write_bytes(b"z" * 1000)


def tiny_network() -> nn.Module:
    """A convolutional network that every rival takes: 3×16×16 pixels to 10 numbers, seeded."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    ).eval()
