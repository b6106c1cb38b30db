"""What a call asks for, checked before anything is computed: the pattern, the data, and which layers are meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from zellige.errors import NothingToPruneError, PruneError
from zellige.patterns import Pattern, parse_pattern
from zellige.prune.allocation import SENSITIVITY
from zellige.prune.arguments import check_progress
from zellige.prune.calibration import Calibration
from zellige.prune.data_score import DataScore
from zellige.prune.layers import Choice, Layer, choose_layers, find_layers, uses
from zellige.prune.scores import Score
from zellige.prune.selection import Selection
from zellige.prune.solvers import Solver


@dataclass(frozen=True, eq=False)
class Chosen:
    """All layers of a model, the places of the weights that a run used, in order (None if none ran), and what becomes of each."""

    layers: list[Layer]
    in_use: list[Any] | None
    choices: list[Choice]

    @property
    def pruned(self) -> list[Layer]:
        """The layers that are to be pruned."""
        return [choice.layer for choice in self.choices if choice.reason is None]


def layers_to_prune(
    model: nn.Module, pattern: Pattern, targets: str | Sequence[str] | None, ignore: str | Sequence[str] | None, example_inputs: Any
) -> Chosen:
    """The layers that a pattern takes in a model, one at least.

    Raises:
        PruneError: it is no model, has weights that can't be ranked or written, or a selection names what isn't there.
        NothingToPruneError: every layer is left alone.
    """
    if not isinstance(model, nn.Module):
        raise PruneError(f"prune takes a torch.nn.Module, not {type(model).__name__}.")
    layers = find_layers(model)
    selection = Selection.of(targets, ignore, (name for layer in layers for name in layer.names))
    for layer in layers:
        _check_weight(layer)
    in_use = uses(model, layers, example_inputs)
    chosen = Chosen(layers, in_use, choose_layers(layers, pattern, selection, in_use))
    if not chosen.pruned:
        raise NothingToPruneError(_nothing_to_prune(chosen.choices))
    return chosen


def checked_pattern(pattern: Pattern | str) -> Pattern:
    """A pattern, or the one that a text means; ``PruneError`` for anything else."""
    if isinstance(pattern, str):
        return parse_pattern(pattern)
    if not isinstance(pattern, Pattern):
        raise PruneError(f"A pattern is one of zellige.patterns, or a text such as 'block:8x8'; not {pattern!r}.")
    return pattern


def check_solver(solver: Solver | None, pattern: Pattern, held_out: Any, sequential: Any, score_counts: bool) -> None:
    """Refuses patterns that the solver can't do, and arguments that would have no effect."""
    if solver is None:
        if held_out is not None or sequential is not True:
            raise PruneError("held_out and sequential are for solvers; give zl.prune one, such as solver='obs', or leave them out.")
        return
    if (refusal := solver.refusal(pattern)) is not None:
        raise PruneError(f"Solver '{solver}' can't do {pattern}: {refusal}.")
    if not isinstance(sequential, bool):
        raise PruneError(f"sequential is True or False, not {sequential!r}.")
    if not score_counts:
        raise PruneError(f"Solver '{solver}' chooses by itself what goes, and the scope how much: a score has no say here, leave "
                         "it out.")


def checked_calibration(
    calibration: Calibration, score: Score | DataScore, measured: bool, solver: Solver | None = None
) -> Calibration:
    """Data that nothing looks at is a mistake, and so is what looks at data without it."""
    check_progress(calibration.progress)
    if isinstance(score, DataScore) and calibration.data is None:
        raise PruneError(f"Score '{score}' is measured on data: give data=… (batches) and loss=… (of model and batch), on the "
                         "command line --data. Where there is none, take l1, l2 or variance.")
    if measured and calibration.data is None:
        raise PruneError(f"Scope '{SENSITIVITY}' is measured on data: give data=… (batches) and loss=… (of model and batch), on "
                         "the command line --data. Where there is none, take another scope.")
    if solver is not None and calibration.data is None:
        raise PruneError(f"Solver '{solver}' needs calibration data: give data=…, batches of the model's arguments (or of what "
                         "loss=… takes); on the command line --data.")
    readers = (isinstance(score, DataScore), measured, solver is not None)
    if sum(readers) > 1:  # who all go through the data
        return calibration.held()
    if not any(readers) and (calibration.data is not None or calibration.loss is not None):
        raise PruneError("data and loss are for scores and scopes that are measured on them, such as 'taylor', and for solvers; "
                         "these look at none.")
    return calibration


def _check_weight(layer: Layer) -> None:
    """Refuses weights that can't be ranked or written, in any layer: such a model has a fault to mend first."""
    weight, whose = layer.weight.detach(), f"The weight of layer '{layer.name}'"
    if weight.is_meta:
        raise PruneError(f"{whose} is on the meta device, which holds no numbers; load the weights first.")
    if weight.is_inference():
        raise PruneError(f"{whose} was made in inference mode and can't be written to; make the model outside of it.")
    if layer.plain and not bool(torch.isfinite(torch.stack(torch.aminmax(weight))).all()):
        raise PruneError(f"{whose} holds NaN or infinite values, and blocks can't be ranked by them; mend it first.")


def _nothing_to_prune(choices: Sequence[Choice]) -> str:
    if not choices:
        return "The model has no convolution or linear layer to prune."
    reasons = "; ".join(f"'{choice.layer.name}' ({choice.reason})" for choice in choices[:5])
    more = f"; and {len(choices) - 5} more" if len(choices) > 5 else ""
    return (f"No layer is left to prune: {reasons}{more}. The stem, and small or unused layers, are pruned if targets name them in "
            "full.")
