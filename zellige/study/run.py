"""A study, run: every trial prunes a copy of the network, evaluates it, and compiles it for the race."""

from __future__ import annotations

import copy
import datetime
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from numbers import Integral
from typing import Any

import torch
from torch import nn

import zellige as zl
from zellige.bench.clock import LEAST_ROUNDS, Turn
from zellige.bench.conditions import processor, versions
from zellige.cpu.host import usable_cpus
from zellige.errors import FAILURES, NothingToPruneError, PruneError, in_one_line
from zellige.patterns import Pattern
from zellige.prune.allocation import SENSITIVITY
from zellige.prune.calibration import Loss, drawn
from zellige.study.axes import AS_TRAINED, PATTERNS, SPARSITIES, Criterion, criterion_named, measured_once, order_named
from zellige.study.held_score import HeldScore
from zellige.study.speed import Race
from zellige.study.study import Row, Study
from zellige.study.trial import LeftOut, Trial, grid

Evaluate = Callable[[nn.Module], float]
Recover = Callable[[nn.Module], object]


def compare(
    model: nn.Module,
    patterns: Sequence[Pattern | str] = PATTERNS,
    sparsities: Sequence[float] = SPARSITIES,
    example_inputs: Any = None,
    *,
    criteria: Sequence[str] = ("l1",),
    orders: Sequence[str] = (AS_TRAINED,),
    timed: Sequence[str] | None = None,
    evaluate: Evaluate | None = None,
    recover: Recover | None = None,
    data: Iterable[Any] | None = None,
    loss: Loss | None = None,
    scope: str = "layer",
    targets: str | Sequence[str] | None = None,
    ignore: str | Sequence[str] | None = None,
    threads: int | None = None,
    rounds: int = LEAST_ROUNDS,
    progress: Callable[[str], None] | None = None,
) -> Study:
    """Prunes copies of a network in many ways, and compares what they keep, how they answer, and how fast they run compiled.

    The model is left as it is. Patterns that can't have a sparsity, as 2:4 can only have one half, are left out there, and so
    are those that take no layer of the model; the result says which and why.

    Args:
        model: a network in evaluation mode, trained if accuracies are to mean something.
        patterns, sparsities: what is tried, each pattern at each sparsity, as ``zl.prune`` takes them.
        example_inputs: the model's arguments, a tuple: the network is compiled for their shapes.
        criteria: by what weights go, each at every pattern and sparsity: names of scores or of solvers, ``"l1"``, ``"obs"``, …
        orders: of the channels before pruning: ``"as trained"``, and ``"permuted"`` by ``zl.permute`` for each pattern and
            sparsity.
        timed: the criteria whose networks are compiled and timed. None means the first one: which blocks a criterion takes
            hardly changes what the others cost. None are with ``()``, and then nothing is compiled.
        evaluate: gives a network's accuracy, a finite number, larger if better; called with the dense one, then with each pruned
            one. Without it, L1 kept says what is left.
        recover: is called with each network right after pruning, before anything is measured: to take batch-norm statistics
            again, say, or to fine-tune.
        data, loss: for criteria that are measured, as ``zl.prune`` takes them; batches are kept, and each criterion is measured
            once, not for each pattern.
        scope, targets, ignore: as ``zl.prune`` takes them, the same for all.
        threads, rounds: of the timing; each round calls all networks in turn, and speeds are medians of the ratios in a round.
        progress: is told in a few words what is being done.

    Raises:
        PruneError: an argument doesn't fit, the model can't be copied, or ``zl.prune`` refuses; ``evaluate`` or ``recover`` fails,
            or the former gives no finite number; nothing is left to compare.
        CompileError, UnsupportedModelError: as ``zl.compile`` raises them.
        VerificationError: a compiled network answers otherwise than PyTorch in float64.

    >>> network = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32)).eval()
    >>> found = compare(network, ["block:8x8", "nm:2:4"], [0.5, 0.75], (torch.ones(1, 32),), timed=())
    >>> [(row.trial.pattern, row.sparsity) for row in found.rows]
    [('block:8x8', 0.5), ('block:8x8', 0.75), ('nm:2:4', 0.5)]
    """
    trials, left_out = grid(patterns, sparsities, criteria, orders)
    timed = criteria[:1] if timed is None else timed
    threads = usable_cpus() if threads is None else threads
    _check(model, criteria, timed, example_inputs, {"rounds": rounds, "threads": threads},
           {"recover": recover, "evaluate": evaluate, "progress": progress})
    rounds, threads = int(rounds), int(threads)
    options = {"scope": scope, "targets": targets, "ignore": ignore}
    batches = None if data is None else list(drawn(data, "compare"))
    bench = _Bench(model, example_inputs, options, batches, loss, evaluate, recover, progress or (lambda text: None))
    if timed:
        bench.tell("compiling the dense network")
        bench.race = Race.of(model, tuple(example_inputs), threads)
    dense_accuracy = bench.accuracy_of(model)
    for number, trial in enumerate(trials, 1):
        bench.tell(f"{number} of {len(trials)}: {trial}")
        bench.run(trial, trial.criterion in timed)
    if not bench.rows:
        raise PruneError(f"Nothing is left to compare: {bench.refused[0].reason}")
    dense_ms, speeds = bench.race.run(rounds, bench.tell) if bench.race else (None, {})
    rows = tuple(replace(row, speed=speeds.get(row.trial)) for row in bench.rows)
    conditions = _conditions(example_inputs, threads, rounds, scope)
    return Study(rows, (*left_out, *bench.refused), dense_accuracy, dense_ms, conditions)


def _check(model: object, criteria: Sequence[str], timed: Sequence[str], example_inputs: object, numbers: Mapping[str, object],
           functions: Mapping[str, object]) -> None:
    """``PruneError`` unless the arguments that trials don't share with ``zl.prune`` fit."""
    if isinstance(timed, str) or not isinstance(timed, Sequence):
        raise PruneError(f"timed is a list of criteria, not {timed!r}.")
    if unknown := [name for name in timed if name not in criteria]:
        raise PruneError(f"timed names criteria that are not compared: {', '.join(unknown)}.")
    if not isinstance(model, nn.Module):
        raise PruneError(f"compare takes a torch.nn.Module, not {type(model).__name__}.")
    if timed and (example_inputs is None or isinstance(example_inputs, torch.Tensor)):
        raise PruneError("compare compiles the networks for the shapes of example_inputs: give a tuple of the model's arguments, "
                         "or timed=() to compile none.")
    for name, number in numbers.items():
        if not isinstance(number, Integral) or isinstance(number, bool) or number < 1:
            raise PruneError(f"{name} is a whole number above 0, not {number!r}.")
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise PruneError(f"{name} is a function, not {function!r}.")


@dataclass
class _Bench:
    """Where trials are run one after another: what they share, and what came out."""

    model: nn.Module
    inputs: Any
    options: dict[str, Any]
    data: list[Any] | None
    loss: Loss | None
    evaluate: Evaluate | None
    recover: Recover | None
    tell: Callable[[str], None]
    race: Race | None = None
    rows: list[Row] = field(default_factory=list)
    refused: list[LeftOut] = field(default_factory=list)
    held: dict[str, Criterion] = field(default_factory=dict)

    def run(self, trial: Trial, timed: bool) -> None:
        pruned = self.copied()
        layers = {name: self.options[name] for name in ("targets", "ignore")}
        if trial.criterion not in self.held:
            self.held[trial.criterion] = measured_once(criterion_named(trial.criterion), HeldScore)
        criterion = self.held[trial.criterion]
        measured: dict[str, Any] = {}
        if criterion.data or self.options["scope"] == SENSITIVITY:
            measured = {"data": self.data, "loss": self.loss}
        try:
            order_named(trial.order).apply(pruned, trial.pattern, trial.sparsity, self.inputs, **layers)
            report = zl.prune(pruned, trial.pattern, trial.sparsity, self.inputs, **criterion.options, **self.options, **measured)
        except NothingToPruneError as error:
            self.refused.append(LeftOut(trial.pattern, trial.sparsity, str(error)))
            return
        if self.recover is not None:
            try:
                self.recover(pruned)
            except FAILURES as error:
                raise PruneError(f"recover fails on a network ({trial}): {in_one_line(error)}") from error
            pruned.eval()
        totals = report.model_totals
        self.rows.append(Row(trial, totals.sparsity, totals.l1_kept, len(report.pruned), self.accuracy_of(pruned)))
        if timed and self.race is not None:
            self.race.enter(trial, pruned)

    def copied(self) -> nn.Module:
        """A copy of the network to prune.

        Raises:
            PruneError: it can't be copied, as one whose weights are computed by hooks can't.
        """
        try:
            return copy.deepcopy(self.model)
        except FAILURES as error:
            raise PruneError(f"compare prunes copies of the model, which can't be copied: {in_one_line(error)}") from error

    def accuracy_of(self, network: nn.Module) -> float | None:
        """What ``evaluate`` gives, if there is one.

        Raises:
            PruneError: it fails, or that is no finite number.
        """
        if self.evaluate is None:
            return None
        try:
            with torch.no_grad():
                found = float(self.evaluate(network))
        except FAILURES as error:
            raise PruneError(f"evaluate fails on a network: {in_one_line(error)}") from error
        if not math.isfinite(found):
            raise PruneError(f"evaluate gave {found}; expected a finite number, larger if better.")
        return found


def _conditions(inputs: Any, threads: int, rounds: int, scope: str) -> dict[str, Any]:
    shapes = [list(value.shape) for value in inputs or () if isinstance(value, torch.Tensor)]
    return {"cpu": processor(), "threads": threads, "rounds": rounds, "turn": asdict(Turn()), "inputs": shapes, "scope": scope,
            "versions": versions(), "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}  # fmt: skip
