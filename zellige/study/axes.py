"""What a study varies besides pattern and sparsity: the criterion by which weights go, and the order of channels before they do.

A new criterion or order is one row here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from zellige.errors import PruneError
from zellige.patterns import Pattern
from zellige.prune.data_score import DataScore
from zellige.prune.permutation.permute import permutation_refusal, permute
from zellige.prune.scores import DATA_SCORES, SCORES
from zellige.prune.solvers import SOLVERS


def takes_all(pattern: Pattern) -> str | None:
    """Why a pattern can't be had: there is no reason."""
    return None


@dataclass(frozen=True)
class Criterion:
    """How ``zl.prune`` is called: its ``options``, and whether it is given data besides. ``refusal`` says why it can't do a
    pattern, or None."""

    options: Mapping[str, Any]
    data: bool = False
    refusal: Callable[[Pattern], str | None] = takes_all


@dataclass(frozen=True)
class Order:
    """What ``apply`` does to the channels of a model, in place, for a pattern, a sparsity, example inputs, and ``targets`` and
    ``ignore``; the model computes the same function. ``refusal`` says why it can't do a pattern, or None."""

    apply: Callable[..., object]
    refusal: Callable[[Pattern], str | None] = takes_all

CRITERIA: dict[str, Criterion] = {
    **{name: Criterion({"score": name}) for name in SCORES},
    **{name: Criterion({"score": score}, data=True) for name, score in DATA_SCORES.items()},
    **{name: Criterion({"solver": name}, data=True, refusal=solver.refusal) for name, solver in SOLVERS.items()},
}

AS_TRAINED, PERMUTED = "as trained", "permuted"
ORDERS: dict[str, Order] = {
    AS_TRAINED: Order(lambda *arguments, **layers: None),
    PERMUTED: Order(permute, permutation_refusal),
}

PATTERNS = ("unstructured", "block:8x8", "block:8x4", "block:8x1", "channel", "tile:128", "tile-rows:128", "nm:2:4")
SPARSITIES = (0.5, 0.75, 0.9)
"""What is compared where nothing else is asked for."""


def criterion_named(name: str) -> Criterion:
    """The criterion of that name; ``PruneError`` if there is none."""
    if not isinstance(name, str) or name not in CRITERIA:
        raise PruneError(f"Unknown criterion {name!r}. Known: {', '.join(CRITERIA)}.")
    return CRITERIA[name]


def order_named(name: str) -> Order:
    """The order of that name; ``PruneError`` if there is none."""
    if not isinstance(name, str) or name not in ORDERS:
        raise PruneError(f"Unknown order {name!r}. Known: {', '.join(ORDERS)}.")
    return ORDERS[name]


def measured_once(criterion: Criterion, hold: Callable[[DataScore], DataScore]) -> Criterion:
    """The criterion with its score held, where that is measured on data."""
    score = criterion.options.get("score")
    return replace(criterion, options={**criterion.options, "score": hold(score)}) if isinstance(score, DataScore) else criterion
