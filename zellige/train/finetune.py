"""``zl.finetune``: train a model by a recipe, zeros staying zero."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from zellige.errors import TrainingError
from zellige.pack.atomic import check_place
from zellige.pack.path import checked_path
from zellige.train.data import find_data
from zellige.train.log import Observer, Row, bar, checked_log
from zellige.train.loop import Loop
from zellige.train.recipe import Recipe
from zellige.train.task import Loss, Task


@dataclass(frozen=True)
class FineTuning:
    """What a run came to: its recipe as resolved, its data, and the rows of its log; the last one is of the model as it is now."""

    recipe: Recipe
    data: str
    history: tuple[Row, ...]
    first: bool = True
    """Whether this is the process that writes files, of several that trained together."""

    @property
    def sparsity(self) -> float:
        """The share of weights that are zero, in the layers that the recipe prunes."""
        return self.history[-1].sparsity

    @property
    def accuracy(self) -> float | None:
        """The share of validation labels that the model gets right, if that could be measured."""
        return self.history[-1].accuracy

    @property
    def loss(self) -> float | None:
        """The mean validation loss, if there was something to validate by."""
        return self.history[-1].validation_loss

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {"recipe": self.recipe.as_dict(), "data": self.data, "sparsity": self.sparsity, "accuracy": self.accuracy,
                "validation_loss": self.loss, "history": [row.as_dict() for row in self.history]}

    def __str__(self) -> str:
        return f"after {self.history[-1].step} steps on {self.data}: {self.history[-1]}"


def finetune(
    model: nn.Module,
    recipe: Recipe | str | os.PathLike[str],
    data: Any,
    *,
    loss: Loss | None = None,
    teacher: nn.Module | None = None,
    example_inputs: Any = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    log: str | os.PathLike[str] | None = None,
    tensorboard: str | None = None,
    progress: Observer | None = None,
) -> FineTuning:
    """Train a model in place by a recipe: what the recipe prunes, or what is zero already, is exactly zero after every step.

    Args:
        model: any module; it is trained where it is, moved to the device that Accelerate chooses, and left in evaluation mode.
        recipe: a ``Recipe``, or the name of a YAML file with one.
        data: ``"digits"``, ``"imagefolder:PATH"``, ``"text:PATH"`` or ``"hf:NAME_OR_DIRECTORY"``; or a dataset that gives
            samples by number, inputs and label; or a pair of these, to train on and to validate by.
        loss: a function of model and batch that gives the mean loss over the batch's samples, in place of cross-entropy.
        teacher: the model that a recipe with distillation learns from; the model itself, as it is now, if None.
        example_inputs: arguments of the model; with them the stem is found by order of execution, as in ``zl.prune``.
        checkpoint: a file for where the run stands, replaced as a whole each time.
        resume: go on from that file. The run ends with the same weights as one that was never interrupted.
        log: a ``.csv`` or ``.json`` file for the figures that the result's ``history`` has.
        tensorboard: a directory for TensorBoard.
        progress: is told after every step how far things are; a bar on the terminal if None.

    Returns:
        What the run came to.

    Raises:
        RecipeError: the recipe doesn't make sense, or doesn't fit the model; nothing was trained.
        TrainingError: data, model and loss don't fit one another, the loss is not finite, or the checkpoint is of another run.
        ZelligeError: a file can't be written.

    >>> import torch
    >>> model = torch.nn.Linear(8, 4)
    >>> samples = [(torch.randn(8), torch.tensor(number % 4)) for number in range(32)]
    >>> result = finetune(model, Recipe(pattern="block:2x2", sparsity=0.5, steps=4, batch=8), samples, progress=lambda moment: None)
    >>> result.sparsity, int((model.weight == 0).sum())
    (0.5, 16)
    """
    if not isinstance(model, nn.Module):
        raise TrainingError(f"finetune takes a torch.nn.Module, not {type(model).__name__}")
    if not isinstance(recipe, Recipe):
        recipe = Recipe.read(checked_path(recipe))
    if resume and checkpoint is None:
        raise TrainingError("to resume a run, say which checkpoint to go on from")
    kept = None if checkpoint is None else Path(checked_path(checkpoint))
    if kept is not None:
        check_place(kept)
    log_file = None if log is None else checked_log(log)
    with recipe.blamed():
        found = find_data(data, recipe.data)
    loop = Loop(model, recipe, found, Task(loss), teacher, example_inputs)
    with ExitStack() as stack:
        stack.push(loop.stack)
        if resume:
            assert kept is not None
            loop.resume(kept)
        observe = progress or stack.enter_context(bar("fine-tuning"))
        loop.run(kept, log_file, tensorboard, observe if loop.processes.first else _nobody, resume)
    return FineTuning(recipe, found.name, tuple(loop.history), loop.processes.first)


def _nobody(moment: object) -> None:
    """Only the first process shows anything."""
