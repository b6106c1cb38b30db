"""A training loop for those who have none: one recipe, one model, any number of processes.

Every step is a function of the recipe, the number of the step, and what a checkpoint holds: the samples, how they are varied, and
what dropout drops follow seeds that are made from the step's number. So a run that was killed and taken up again ends with the same
weights as one that wasn't, on the same machine and with as many processes.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader

from zellige.errors import FAILURES, TrainingError, ZelligeError
from zellige.prune.calibration import Calibration
from zellige.train.checkpoint import fingerprint, load_checkpoint, save_checkpoint
from zellige.train.choice import Choice
from zellige.train.data.samples import Data, Key, numbers_at, part_of, seed_of, steps_per_epoch
from zellige.train.distillation import Distiller
from zellige.train.evaluation import Score, evaluate
from zellige.train.log import Moment, Observer, Row, tensorboard_writer, write_log
from zellige.train.precision import Precision
from zellige.train.processes import Processes
from zellige.train.recipe import Recipe
from zellige.train.sparsifier import refuse_meta
from zellige.train.task import Task
from zellige.train.training import SparseTraining

ROWS = 100  # of a log, about, besides those of evaluations
SECONDS_BETWEEN_WRITES = 5.0
SEEDED_STEP, SEEDED_SAMPLES = range(2)
PARTS = frozenset({"taught_by", "model", "optimizer", "average", "training", "precision", "history", "losses", "seconds"})
"""What a checkpoint holds, beside its recipe."""


class Loop:
    """A run in the making: everything is checked here, before the first step.

    Raises:
        RecipeError: the recipe doesn't fit the model.
        TrainingError: recipe, data, model and processes don't fit one another.
    """

    def __init__(
        self, model: nn.Module, recipe: Recipe, data: Data, task: Task, teacher: nn.Module | None = None, example_inputs: Any = None
    ) -> None:
        self.model, self.recipe, self.data, self.task = model, recipe, data, task
        self.processes = processes = Processes.started()
        self.per_epoch = steps_per_epoch(len(data.training), recipe.batch)
        self.steps = recipe.steps or (recipe.epochs or 0) * self.per_epoch
        self.parts = processes.count * recipe.accumulate
        if recipe.batch % self.parts:
            raise TrainingError(f"a batch of {recipe.batch} can't be shared evenly by {processes.count} processes × "
                                f"{recipe.accumulate} parts; make batch a multiple of {self.parts}")
        self.every = recipe.evaluate_every or self.per_epoch
        self.saves_every = recipe.checkpoint_every or self.every
        self.log_every = max(1, self.steps // ROWS)
        if data.validation is not None and not len(data.validation):
            raise TrainingError("there are no samples to validate by: give some, or leave out the dataset for it")
        _check_parameters(model)
        model.to(processes.device)
        self.stack = ExitStack()
        with recipe.blamed():
            choice = None if recipe.wish is None else Choice(model, recipe.wish, example_inputs, self._calibration())
        self.average = None
        if recipe.average is not None:
            self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.average), use_buffers=True)
        self.wrapped = processes.wrapped(model)
        self.optimizer = recipe.optimizer.make(model)
        self.precision = Precision(recipe.precision, processes.device)
        with recipe.blamed():
            self.training = SparseTraining(self.wrapped, copy.deepcopy(recipe.scheme), choice, self.optimizer, self.steps)
        self.training.sparsifier.copies = [self.average] if self.average else []
        self.distiller = None
        self.taught_by = None
        if recipe.distillation:  # last: it listens to the model until the stack is closed
            dense = copy.deepcopy(teacher or model).to(processes.device)
            self.taught_by = fingerprint(dense)
            with recipe.blamed():
                self.distiller = Distiller(recipe.distillation, model, dense, task)
            self.stack.callback(self.distiller.close)
        self.history: list[Row] = []
        self._losses: list[float] = []
        self._seconds = 0.0

    def resume(self, path: str | os.PathLike[str]) -> None:
        """Go on from a checkpoint of the same recipe.

        Raises:
            TrainingError: it belongs to another run, or is damaged; the model is as it was.
        """
        state = load_checkpoint(path, self.recipe.as_dict(), PARTS)
        if state["taught_by"] != self.taught_by:
            raise TrainingError(f"{os.fspath(path)} belongs to a run that learns from another dense model; give the same one")
        before = copy.deepcopy(self.model.state_dict())
        try:
            self._take(state)
        except (*FAILURES, ZelligeError) as error:  # what fitted has been written by then
            self.model.load_state_dict(before)
            last = (str(error).strip().splitlines() or [""])[-1].strip()
            raise TrainingError(f"{os.fspath(path)} belongs to a run of another model, or is damaged: {type(error).__name__}: "
                                f"{last}") from error

    def _take(self, state: dict[str, Any]) -> None:
        """Everything that a checkpoint holds."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.training.load_state_dict(state["training"])
        self.precision.load_state_dict(state["precision"])
        self.history = [Row(**row) for row in state["history"]]
        self._losses, self._seconds = state["losses"], state["seconds"]

    def run(self, checkpoint: Path | None, log: Path | None, tensorboard: str | None, observe: Observer, resumed: bool) -> None:
        """Train to the end, and leave the model in evaluation mode with its zeros.

        Raises:
            TrainingError: the loss is not finite.
        """
        first = self.processes.first
        board = tensorboard_writer(tensorboard) if tensorboard and first else None
        devices = [self.processes.device] if self.processes.device.type == "cuda" else []
        logged = began_here = time.perf_counter()
        at_first = self.training.step
        began = began_here - self._seconds
        with self.stack, torch.random.fork_rng(devices=devices):
            if not resumed:
                with self.recipe.blamed():
                    self.training.begin()
                if self.training.wants_evaluation:
                    self._evaluated(self._evaluate(self.model), checkpoint)
            self.model.train()
            for step, batches in self._batches():
                self._step(step, batches, checkpoint)
                done = step + 1
                self._seconds = time.perf_counter() - began
                if done == self.steps:
                    self._finish()
                score = None
                if done == self.steps or done % self.every == 0 or self.training.wants_evaluation:
                    score = self._evaluate(self.model)
                    self._evaluated(score, checkpoint)
                if score or done == self.steps or done % self.log_every == 0:
                    self._note(done, score)
                    if first and log and (score or done == self.steps or time.perf_counter() - logged > SECONDS_BETWEEN_WRITES):
                        write_log(log, self.history)
                        logged = time.perf_counter()
                    if board:
                        board(self.history[-1])
                if checkpoint and done < self.steps and done % self.saves_every == 0:
                    self._save(checkpoint)
                left = (time.perf_counter() - began_here) / (done - at_first) * (self.steps - done)
                observe(Moment(done, self.steps, self.history[-1] if self.history else None, left))
            self.processes.wait()

    def _batches(self) -> Iterator[tuple[int, list[Any]]]:
        """Of every step that is left, the parts of its batch that fall to this process."""
        steps = range(self.training.step, self.steps)
        keys = (self._key(step, part) for step in steps for part in range(self.recipe.accumulate))
        loader: Any = DataLoader(self.data.training, batch_size=None, sampler=keys, num_workers=self.recipe.workers)  # type: ignore
        batches = iter(loader)
        for step in steps:
            yield step, [next(batches) for _ in range(self.recipe.accumulate)]

    def _key(self, step: int, part: int) -> Key:
        numbers = numbers_at(step, len(self.data.training), self.recipe.batch, self.recipe.seed)
        place = self.processes.rank * self.recipe.accumulate + part
        return part_of(numbers, place, self.parts), seed_of(self.recipe.seed, step, SEEDED_SAMPLES)

    def _step(self, step: int, batches: list[Any], checkpoint: Path | None) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.optimizer.at(step, self.steps)
        loss = self._gradients(step, batches, checkpoint)
        while not self.precision.unscaled(self.optimizer):
            if self.precision.spent:
                raise TrainingError(self._not_finite(step, f"gradients overflow in {self.recipe.precision}", checkpoint))
            loss = self._gradients(step, batches, checkpoint)
        if self.recipe.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.training.before_step()
        self.optimizer.step()
        self.training.after_step()
        if self.average:
            self.average.update_parameters(self.model)
            self.training.hold()
        self._losses.append(loss)

    def _gradients(self, step: int, batches: list[Any], checkpoint: Path | None) -> float:
        """The backward pass of a step; returns the loss over all processes."""
        torch.manual_seed(seed_of(self.recipe.seed, step, self.processes.rank, SEEDED_STEP))
        self.optimizer.zero_grad()
        total = 0.0
        for part, batch in enumerate(batches):
            together = part == len(batches) - 1
            with nullcontext() if together else self.processes.accelerator.no_sync(self.wrapped):
                loss = self._loss(self._moved(batch)) / len(batches)
                if not loss.requires_grad:
                    raise TrainingError("the loss depends on no weight that is trained: something in the model, or in the loss, "
                                        "detaches it")
                self.processes.accelerator.backward(self.precision.scaled(loss))
            total += float(loss.detach())
        loss_of_all = self.processes.summed([total])[0] / self.processes.count
        if not math.isfinite(loss_of_all):
            raise TrainingError(self._not_finite(step, f"the loss is {loss_of_all}", checkpoint))
        return loss_of_all

    def _loss(self, batch: Any) -> torch.Tensor:
        """The loss of a part of a batch, in the recipe's precision."""
        with self.precision.autocast():
            if self.distiller:
                return self.distiller.loss(self.wrapped, batch, self.recipe.label_smoothing)
            return self.task.answer(self.wrapped, batch, self.recipe.label_smoothing).loss

    def _finish(self) -> None:
        """Masks for the last time; the average, if there is one, is the result."""
        self.training.finish()
        if self.average:
            self.model.load_state_dict(self.average.module.state_dict())
        self.model.eval()

    def _evaluate(self, model: nn.Module) -> Score | None:
        if self.data.validation is None:
            return None
        return evaluate(model, self.data.validation, self.recipe.batch, self.task, self.processes, self._moved)

    def _evaluated(self, score: Score | None, checkpoint: Path | None) -> None:
        """Tell the scheme."""
        if score is not None and not math.isfinite(score.loss):
            raise TrainingError(self._not_finite(self.training.step - 1, f"the validation loss is {score.loss}", checkpoint))
        if self.training.step == self.steps:
            return
        if score is not None and score.accuracy is not None:
            self.training.evaluated(score.accuracy)
        elif self.training.wants_evaluation:
            raise TrainingError("the scheme goes by the accuracy, and there is none: give data to validate by, with labels")

    def _note(self, step: int, score: Score | None) -> None:
        losses, self._losses = self._losses, []
        self.history.append(Row(
            step, step / self.per_epoch, self.training.learning_rate, self.training.sparsity, self._seconds,
            sum(losses) / len(losses) if losses else None,
            score.loss if score else None, score.bits if score and self.data.bits else None, score.accuracy if score else None))

    def _save(self, path: Path) -> None:
        """A checkpoint, if the weights are all numbers; the first process writes it, all wait."""
        parameters = [*self.model.parameters(), *(self.average.parameters() if self.average else ())]
        if not all(bool(parameter.isfinite().all()) for parameter in parameters):
            raise TrainingError(self._not_finite(self.training.step - 1, "weights are not finite after it", path))
        if self.processes.first:
            save_checkpoint(path, {
                "recipe": self.recipe.as_dict(), "taught_by": self.taught_by, "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(), "average": self.average.state_dict() if self.average else None,
                "training": self.training.state_dict(), "precision": self.precision.state_dict(),
                "history": [row.as_dict() for row in self.history], "losses": self._losses, "seconds": self._seconds})
        self.processes.wait()

    def _not_finite(self, step: int, what: str, checkpoint: Path | None) -> str:
        """Which step and batch it was, and what is left to go on from."""
        step = max(step, 0)
        numbers = numbers_at(step, len(self.data.training), self.recipe.batch, self.recipe.seed)
        some = ", ".join(map(str, numbers[:8])) + (", …" if len(numbers) > 8 else "")
        epoch, at = divmod(step, self.per_epoch)
        kept = f"the last good checkpoint is {checkpoint}" if checkpoint and checkpoint.is_file() else "there is no checkpoint yet"
        return (f"step {step + 1}: {what} (batch {at + 1} of epoch {epoch + 1}, samples {some}); {kept}. Lower the learning rate, "
                "clip gradients, or look at the samples")

    def _calibration(self) -> Calibration:
        """The first batches, the same in every process, for scores that look at data."""
        numbers = [numbers_at(step, len(self.data.training), self.recipe.batch, self.recipe.seed)
                   for step in range(min(self.recipe.calibration, self.per_epoch))]
        batches = (self.data.training.batch(some, None) for some in numbers)
        return Calibration(_Again(batches), lambda model, batch: self.task.answer(model, batch).loss)

    def _moved(self, batch: Any) -> Any:
        return tree_map_only(torch.Tensor, lambda tensor: tensor.to(self.processes.device, non_blocking=True), batch)


def _check_parameters(model: nn.Module) -> None:
    """Refuses a model that no optimiser can do anything with."""
    refuse_meta(model)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not trained:
        raise TrainingError("there is nothing to train: the model has no parameter with requires_grad")
    for name, parameter in trained.items():
        if parameter.dtype == torch.float16:
            raise TrainingError(f"'{name}' is in float16, in which an optimiser's steps are lost; call model.float(), and let the "
                                "recipe's precision f16 or bf16 say what to compute in")


class _Again:
    """An iterable that is made once it is first gone through, and can be gone through again."""

    def __init__(self, batches: Iterator[Any]) -> None:
        self._batches, self._made = batches, list[Any]()

    def __iter__(self) -> Iterator[Any]:
        self._made += self._batches
        return iter(self._made)
