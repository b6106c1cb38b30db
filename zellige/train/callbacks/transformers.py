"""A callback for the Trainer of Hugging Face transformers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from zellige.errors import TrainingError
from zellige.train.callbacks.pruning import Pruning
from zellige.train.checkpoint import load_checkpoint, save_checkpoint
from zellige.train.training import SparseTraining

FILE = "zellige.checkpoint"
"""What lies beside the Trainer's own files in a checkpoint."""


class SparseCallback(TrainerCallback):
    """Prunes while a Trainer trains: ``Trainer(…, callbacks=[SparseCallback(Pruning("block:8x8", 0.5))])``.

    ``metric`` is the evaluation's figure that a scheme goes by which wants an accuracy. Checkpoints of the Trainer get a file of
    this callback, from which ``resume_from_checkpoint`` goes on.

    Raises:
        TrainingError: a resumed checkpoint lacks that file; or what ``Pruning.training`` raises, before the first step.
    """

    def __init__(self, pruning: Pruning, metric: str = "eval_accuracy") -> None:
        self.pruning, self.metric = copy.deepcopy(pruning), metric
        self.training: SparseTraining | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **trainer: Any) -> None:
        self.training = self.pruning.training(trainer["model"], trainer["optimizer"], state.max_steps)
        if state.global_step:
            found = load_checkpoint(self._file(args, state), {}, frozenset({"training"}))
            self.training.load_state_dict(found["training"])
            if self.training.step != state.global_step:
                raise TrainingError(f"{self._file(args, state)} is of step {self.training.step}, the Trainer's own of "
                                    f"{state.global_step}")
        else:
            self.training.begin()

    def on_pre_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **trainer: Any) -> None:
        self._begun.before_step()

    def on_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **trainer: Any) -> None:
        self._begun.after_step()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **trainer: Any) -> None:
        if self._begun.wants_evaluation:
            control.should_evaluate = True

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **trainer: Any) -> None:
        metrics: dict[str, float] = trainer["metrics"]
        if self.training is None:
            return
        if self.metric in metrics:
            self.training.evaluated(metrics[self.metric])
        elif self.training.wants_evaluation:
            raise TrainingError(f"the scheme goes by {self.metric}, and the evaluation has {', '.join(metrics)}: give the Trainer "
                                "compute_metrics that tells it, or name another metric")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **trainer: Any) -> None:
        if state.is_world_process_zero:
            save_checkpoint(self._file(args, state), {"recipe": {}, "training": self._begun.state_dict()})

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **trainer: Any) -> None:
        self._begun.finish()

    @property
    def _begun(self) -> SparseTraining:
        if self.training is None:
            raise TrainingError("the Trainer has not begun to train")
        return self.training

    def _file(self, args: TrainingArguments, state: TrainerState) -> Path:
        return Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}" / FILE
