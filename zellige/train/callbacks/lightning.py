"""A callback for the Trainer of Lightning."""

from __future__ import annotations

import copy
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from zellige.errors import TrainingError
from zellige.train.callbacks.pruning import Pruning
from zellige.train.training import SparseTraining


class SparseCallback(Callback):
    """Prunes while a Trainer trains: ``Trainer(…, callbacks=[SparseCallback(Pruning("block:8x8", 0.5))])``.

    ``metric`` is the logged figure that a scheme goes by which wants an accuracy; it hears of it whenever the Trainer validates, so
    validate often enough. Lightning keeps the callback's state in its checkpoints, and goes on from there; in the middle of an
    epoch it begins the data anew, whatever callbacks there are.

    Raises:
        TrainingError: or what ``Pruning.training`` raises, before the first step.
    """

    def __init__(self, pruning: Pruning, metric: str = "val_accuracy") -> None:
        self.pruning, self.metric = copy.deepcopy(pruning), metric
        self.training: SparseTraining | None = None
        self._restored: dict[str, Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.training = self.pruning.training(pl_module, trainer.optimizers, trainer.estimated_stepping_batches)
        if self._restored:
            self.training.load_state_dict(self._restored)
            self._restored = None
        else:
            self.training.begin()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self._begun.before_step()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step > self._begun.step:  # not while gradients are being accumulated
            self._begun.after_step()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.training is None or trainer.sanity_checking:
            return
        if self.metric in trainer.callback_metrics:
            self.training.evaluated(float(trainer.callback_metrics[self.metric]))
        elif self.training.wants_evaluation:
            raise TrainingError(f"the scheme goes by {self.metric}, and what was logged is {', '.join(trainer.callback_metrics)}: "
                                "log it in validation_step, or name another metric")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begun.finish()

    def state_dict(self) -> dict[str, Any]:
        return self.training.state_dict() if self.training else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict

    @property
    def _begun(self) -> SparseTraining:
        if self.training is None:
            raise TrainingError("the Trainer has not begun to train")
        return self.training
