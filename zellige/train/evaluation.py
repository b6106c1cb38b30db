"""How good a model is: its mean loss over the validation samples, and the share of labels that it gets right."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from zellige.train.data.samples import Samples
from zellige.train.processes import Processes
from zellige.train.task import Task


@dataclass(frozen=True)
class Score:
    """The mean loss, and the share of right answers where one can say what is right."""

    loss: float
    accuracy: float | None

    @property
    def bits(self) -> float:
        """The loss in bits."""
        return self.loss / math.log(2)


def evaluate(
    model: nn.Module, samples: Samples, batch: int, task: Task, processes: Processes, to_device: Callable[[Any], Any]
) -> Score:
    """Ask the bare model about all samples, each process about a part of them; its modes are left as they were."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    loss, count, right, judged = 0.0, 0, 0, True
    try:
        with torch.no_grad():
            for start in range(processes.rank * batch, len(samples), processes.count * batch):
                numbers = list(range(start, min(start + batch, len(samples))))
                answer = task.answer(model, to_device(samples.batch(numbers, None)))
                loss += float(answer.loss) * answer.count
                count += answer.count
                judged = judged and answer.right is not None
                right += int(answer.right) if answer.right is not None else 0
    finally:
        for module, training in modes:
            module.training = training
    loss, total, hits, unjudged = processes.summed([loss, count, right, 0 if judged else 1])
    return Score(loss / total, None if unjudged else hits / total)
