"""Learning from the dense model beside the labels: its logits (Hinton et al., arXiv 1503.02531), and its features with the loss
"SquareHead" (Kurtic et al., arXiv 2310.06927): the squared distance ÷ the teacher's own square, the mean over the layers named.

    loss = labels · L + logits · t² KL(teacher ‖ student, both at temperature t) + features · SquareHead
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as functional
from torch import nn

from zellige.errors import PruneError, RecipeError, TrainingError
from zellige.prune.selection import Selection
from zellige.train.schemes.scheme import check_share
from zellige.train.task import Task


@dataclass(frozen=True)
class Distillation:
    """Weights of the three losses, the temperature, and the modules whose outputs are features: names or ``re:`` patterns."""

    labels: float = 1.0
    logits: float = 1.0
    temperature: float = 2.0
    features: float = 0.0
    layers: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("labels", "logits", "features", "temperature"):
            check_share(name, getattr(self, name), most=float("inf"))
        if self.temperature == 0:
            raise RecipeError("temperature must be more than 0", "temperature")
        if bool(self.features) != bool(self.layers):
            raise RecipeError("features are compared at the modules that layers names: give both, or neither", "features")


class Distiller:
    """A teacher beside a student of the same architecture. While it is open, it listens to what their modules put out.

    Raises:
        PruneError: ``layers`` has an entry that names no module.
    """

    def __init__(self, options: Distillation, student: nn.Module, teacher: nn.Module, task: Task) -> None:
        self.options, self.task = options, task
        self.teacher = teacher.eval().requires_grad_(False)
        self._heard: dict[int, dict[str, torch.Tensor]] = {0: {}, 1: {}}
        self._listening = False
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        named = [(which, model, self._modules(model)) for which, model in enumerate((student, self.teacher))]
        for which, model, names in named:  # all are known to be there
            for name in names:
                self._hooks.append(model.get_submodule(name).register_forward_hook(self._listener(which, name)))

    def loss(self, student: nn.Module, batch: Any, smoothing: float) -> torch.Tensor:
        """The loss of a batch, all three parts of it.

        Raises:
            TrainingError: there are no logits, or no features, to compare.
        """
        self._listening = True
        try:
            mine = self.task.answer(student, batch, smoothing)
            with torch.no_grad():
                theirs = self.task.answer(self.teacher, batch)
        finally:
            self._listening = False
        loss = self.options.labels * mine.loss
        if self.options.logits:
            if mine.logits is None or theirs.logits is None:
                raise TrainingError("there are no logits to learn from where the loss is a function of your own: set logits to 0")
            loss = loss + self.options.logits * logits_loss(mine.logits, theirs.logits, self.options.temperature)
        if self.options.features:
            pairs = [(feature, self._heard[1][name]) for name, feature in self._heard[0].items() if name in self._heard[1]]
            if not pairs:
                raise TrainingError("none of the modules in layers was called, or none puts out a tensor: name others")
            loss = loss + self.options.features * sum(square_head(*pair) for pair in pairs) / len(pairs)
        self._heard = {0: {}, 1: {}}
        return loss

    def close(self) -> None:
        """Stop listening: both models are as they were."""
        for hook in self._hooks:
            hook.remove()

    def _modules(self, model: nn.Module) -> list[str]:
        if not self.options.layers:
            return []
        names = [name for name, _ in model.named_modules() if name]
        selection = Selection.of(self.options.layers, None, names)
        exact = [name for name in names if any(name == entry or entry.startswith("re:") for entry in self.options.layers)]
        found = [name for name in exact if selection.wants([name])]
        if not found:
            raise PruneError(f"layers {self.options.layers} name no module; the model has {', '.join(names[:3])}, …")
        return found

    def _listener(self, which: int, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def listen(module: nn.Module, inputs: Any, output: Any) -> None:
            feature = output[0] if isinstance(output, tuple) else output
            if self._listening and isinstance(feature, torch.Tensor):
                self._heard[which][name] = feature
        return listen


def logits_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """t² KL(teacher ‖ student), the mean over labels.

    >>> float(logits_loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.0]]), 2.0))
    0.0
    """
    mine, theirs = (functional.log_softmax(logits.flatten(0, -2).float() / temperature, -1) for logits in (student, teacher))
    return temperature**2 * functional.kl_div(mine, theirs, reduction="batchmean", log_target=True)


def square_head(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """The mean square of the difference ÷ that of the teacher's feature.

    >>> float(square_head(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.0])))
    0.25
    """
    teacher = teacher.float()
    return (student.float() - teacher).square().mean() / teacher.square().mean().clamp(min=torch.finfo(torch.float32).tiny)
