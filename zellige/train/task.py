"""How a model is asked about a batch, and how its answer is judged.

A pair of inputs and labels: the model gives logits, classes last (or an object that has them as ``logits``), for one label each;
the loss is cross-entropy. A dict: the arguments of a model of transformers, which gives its own loss. Or a function of one's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as functional
from torch import nn

from zellige.errors import FAILURES, TrainingError, in_one_line

Loss = Callable[[nn.Module, Any], torch.Tensor]
"""Model and batch in, one number to differentiate out, the mean over the batch's samples."""


@dataclass(frozen=True)
class Answer:
    """The loss of a batch; the logits, where there are some; how many labels there are, and how many are right, if one can say."""

    loss: torch.Tensor
    logits: torch.Tensor | None = None
    count: int = 1
    right: torch.Tensor | None = None


@dataclass(frozen=True)
class Task:
    """Asks models; with a ``loss`` of one's own, or else by what batches look like."""

    loss: Loss | None = None

    def answer(self, model: nn.Module, batch: Any, smoothing: float = 0.0) -> Answer:
        """What the model makes of a batch.

        Raises:
            TrainingError: batch and model don't fit one another.
        """
        if self.loss is not None:
            return Answer(_loss_of_ones_own(self.loss, model, batch), count=_samples(batch))
        if isinstance(batch, Mapping):
            return _of_transformers(model, batch)
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise TrainingError(f"a batch must be a pair of inputs and labels, or a dict; this one is {type(batch).__name__}: give "
                                "finetune a loss of your own")
        logits, labels = logits_of(_asked(model, batch[0])), batch[1]
        if not isinstance(labels, torch.Tensor) or labels.is_floating_point() or labels.is_complex():
            raise TrainingError(f"labels must be a tensor of whole numbers, those of their classes; these are {_described(labels)}"
                                ": give finetune a loss of your own")
        if logits.shape[:-1] != labels.shape:
            raise TrainingError(f"the model gives logits of shape {tuple(logits.shape)} for labels of shape {tuple(labels.shape)}; "
                                "expected classes on the last axis: give finetune a loss of your own")
        try:
            loss = functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), label_smoothing=smoothing)
        except FAILURES as error:
            raise TrainingError(f"the model gives logits of {logits.shape[-1]} classes, and labels lie between {int(labels.min())} "
                                f"and {int(labels.max())}: {in_one_line(error)}") from error
        return Answer(loss, logits, labels.numel(), (logits.detach().argmax(-1) == labels).sum())


def logits_of(output: Any) -> torch.Tensor:
    """The logits in what a model gave."""
    found = output if isinstance(output, torch.Tensor) else getattr(output, "logits", None)
    if not isinstance(found, torch.Tensor):
        raise TrainingError(f"the model gives {type(output).__name__}; expected a tensor of logits, or an object that has them as "
                            "logits: give finetune a loss of your own")
    return found


def _asked(model: nn.Module, *inputs: Any, **named: Any) -> Any:
    """What the model makes of inputs, which may be of a form that it can't take."""
    try:
        return model(*inputs, **named)
    except torch.OutOfMemoryError:  # whose own words say more
        raise
    except FAILURES as error:
        came = ", ".join([*map(_described, inputs), *(f"{name} {_described(value)}" for name, value in named.items())])
        raise TrainingError(f"the model can't run on a batch of {came}: {in_one_line(error)}; give data of the form that it "
                            "takes") from error


def _loss_of_ones_own(loss: Loss, model: nn.Module, batch: Any) -> torch.Tensor:
    """What a user's function gives, which must be one number."""
    try:
        found = loss(model, batch)
    except FAILURES as error:
        raise TrainingError(f"the loss fails on a batch: {in_one_line(error)}") from error
    if not isinstance(found, torch.Tensor) or found.numel() != 1 or not found.is_floating_point():
        raise TrainingError(f"the loss must be a tensor of one number, the mean over the batch's samples; not {_described(found)}")
    return found.reshape(())


def _described(value: Any) -> str:
    """A value's type, and a tensor's shape."""
    return f"{value.dtype} of {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__


def _of_transformers(model: nn.Module, batch: Mapping[str, Any]) -> Answer:
    output = _asked(model, **batch)
    loss, labels, logits = getattr(output, "loss", None), batch.get("labels"), getattr(output, "logits", None)
    if loss is None or labels is None:
        raise TrainingError("a batch that is a dict is for models that give a loss for their labels, and this one gives none: keep "
                            "a column 'labels', or give finetune a loss of your own")
    right = None
    if logits is not None and logits.dim() == 2 and labels.dim() == 1:
        right = (logits.detach().argmax(-1) == labels).sum()
    return Answer(loss, logits, _samples(batch), right)


def _samples(batch: Any) -> int:
    leaves = [leaf for leaf in torch.utils._pytree.tree_leaves(batch) if isinstance(leaf, torch.Tensor) and leaf.dim()]
    return len(leaves[0]) if leaves else 1
