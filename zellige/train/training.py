"""A model that is trained under a scheme: what loops and callbacks hold, and call at five moments of a run.

    training = SparseTraining(model, scheme, choice, optimizer, steps)
    training.begin()
    for each step:
        …backward…
        training.before_step(); optimizer.step(); training.after_step()
        training.evaluated(accuracy)                # whenever somebody measured it
    training.finish()
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from zellige.errors import TrainingError
from zellige.train.choice import Choice
from zellige.train.names import bare_parameters
from zellige.train.schemes.scheme import Scheme
from zellige.train.sharding import local_tensor
from zellige.train.sparsifier import Sparsifier


class SparseTraining:
    """Model, scheme, optimiser and masks, and where the run stands.

    ``choice`` says what may be pruned; schemes that hold what is zero, or prune nothing, need none.
    """

    def __init__(
        self, model: nn.Module, scheme: Scheme, choice: Choice | None, optimizer: torch.optim.Optimizer, steps: int
    ) -> None:
        scheme.check(choice.wish if choice else None)
        self.model, self.scheme, self.optimizer, self.steps, self._choice = model, scheme, optimizer, steps, choice
        self.sparsifier = Sparsifier(model, {}, optimizer)
        self.step = 0
        """How many steps are done."""
        self.remembers = True
        """Whether the optimiser's memory is of the weights in the model, and must forget what is pruned."""

    @property
    def choice(self) -> Choice:
        """What may be pruned."""
        if self._choice is None:
            raise TrainingError(f"scheme '{type(self.scheme).__name__.lower()}' needs a pattern and a sparsity beside it")
        return self._choice

    @property
    def learning_rate(self) -> float:
        """The optimiser's, of its first group."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def sparsity(self) -> float:
        """The share of weights that are zero, in the layers that may be pruned, or else in those that have masks."""
        names = self._choice.layers if self._choice else self.sparsifier.masks
        parameters = bare_parameters(self.model)
        weights = [local_tensor(parameters[name].detach()) for name in names]
        count = sum(weight.numel() for weight in weights)
        return 1 - sum(int(weight.count_nonzero()) for weight in weights) / count if count else 0.0

    def parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that may be pruned, by bare name."""
        parameters = bare_parameters(self.model)
        return {name: parameters[name] for name in self.choice.layers}

    def set_masks(self, masks: Mapping[str, torch.Tensor]) -> None:
        """Prune by other masks from now on: the same ones in every process."""
        self.sparsifier.set_masks(masks, self.remembers)
        self.sparsifier.synchronize(self.remembers)

    def begin(self) -> None:
        """Before the first step: chooses masks, if the scheme has them from the beginning."""
        self.scheme.begin(self)

    def before_step(self) -> None:
        """After the backward pass of a step, when gradients are whole and unscaled."""
        self.scheme.before_step(self)

    def after_step(self) -> None:
        """After the optimiser's step, taken or skipped."""
        self.step += 1
        self.scheme.after_step(self)
        self.hold()

    def hold(self) -> None:
        """Make zero what the masks exclude."""
        self.sparsifier.step(state=self.remembers)

    @property
    def wants_evaluation(self) -> bool:
        """Whether the scheme waits for an accuracy."""
        return self.scheme.wants_evaluation(self)

    def evaluated(self, accuracy: float) -> None:
        """Tell the scheme how well the model does: the same number in every process."""
        self.scheme.evaluated(self, accuracy)

    def finish(self) -> nn.Module:
        """After the last step: returns the plain model, with its zeros."""
        self.scheme.finish(self)
        return self.sparsifier.finalize()

    def state_dict(self) -> dict[str, Any]:
        """Where the run stands: plain data and tensors."""
        return {"step": self.step, "remembers": self.remembers, "scheme": self.scheme.state_dict(), **self.sparsifier.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there. Model and optimiser must have been loaded before."""
        self.step, self.remembers = int(state["step"]), bool(state["remembers"])
        self.scheme.load_state_dict(state["scheme"])
        self.sparsifier.load_state_dict(state, self.remembers)
