"""What a study found: rows of numbers, as data, as JSON, as a table and as a plot."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from zellige.bench.clock import Ratio
from zellige.bench.table import Column, Table, milliseconds
from zellige.errors import PruneError
from zellige.study.axes import AS_TRAINED
from zellige.study.trial import LeftOut, Trial


@dataclass(frozen=True)
class Speed:
    """A compiled network's median time per call, and how many times as fast as the compiled dense one it was in the same rounds."""

    median_ms: float
    over_dense: Ratio


@dataclass(frozen=True)
class Row:
    """What became of one trial. ``sparsity`` and ``kept_l1`` are shares of all weights of convolutions and linear layers, pruned
    or not, so that patterns compare which leave different layers alone. ``accuracy`` is what ``evaluate`` gave, None without it;
    ``speed`` is None where none was measured."""

    trial: Trial
    sparsity: float
    kept_l1: float
    layers: int
    accuracy: float | None = None
    speed: Speed | None = None


@dataclass(frozen=True, eq=False)
class Study:
    """All rows of a study, the dense network beside them, what patterns can't have, and the conditions. Prints as a table."""

    rows: tuple[Row, ...]
    left_out: tuple[LeftOut, ...]
    dense_accuracy: float | None
    dense_ms: float | None
    conditions: Mapping[str, Any]

    def lost(self, row: Row) -> float:
        """The accuracy that a row lost; where none was measured, the share of L1 that it lost."""
        return 1 - row.kept_l1 if row.accuracy is None or self.dense_accuracy is None else self.dense_accuracy - row.accuracy

    def best(self) -> list[Row]:
        """The Pareto front, the slowest row first: what neither another row nor the dense network beats, losing no more."""
        front: list[Row] = []
        least = math.inf
        for row in sorted(filter(_has_speed, self.rows), key=lambda row: (-_times(row), self.lost(row))):
            if self.lost(row) < (least if _times(row) > 1 else min(least, 0)):
                least = self.lost(row)
                front.append(row)
        return front[::-1]

    def table(self, title: str = "patterns compared") -> Table:
        """The rows as a table; columns of which nothing is known, or in which nothing varies, are left out."""
        shown = [column for column in COLUMNS if any(map(column.says, self.rows))]
        columns = tuple(Column(column.heading, column.numeric) for column in shown)
        return Table(title, columns, tuple(tuple(column.cell(self, row) for column in shown) for row in self.rows))

    def notes(self) -> list[str]:
        """What belongs under the table: the dense network, and what was left out."""
        dense = [f"accuracy {self.dense_accuracy:.1%}"] if self.dense_accuracy is not None else []
        dense += [f"{milliseconds(self.dense_ms)} ms compiled"] if self.dense_ms is not None else []
        lines = [f"the dense network: {', '.join(dense)}"] if dense else []
        levels: dict[tuple[str, str], list[str]] = {}
        for one in self.left_out:
            levels.setdefault((one.beside and f" ({one.beside})", one.reason), []).append(f"{one.pattern} at {one.sparsity:g}")
        return [*lines, *(f"left out: {', '.join(dict.fromkeys(what))}{beside}: {why}" for (beside, why), what in levels.items())]

    def __str__(self) -> str:
        return "\n".join([str(self.table()), "", *self.notes()])

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draw accuracy lost (or L1 lost, where there is no accuracy) against speed into an .svg, .png or .pdf file.

        Raises ``ZelligeError`` for another ending, a missing directory, where matplotlib is not installed, or where no speed was
        measured.
        """
        from zellige.study.plot import plot_studies

        return plot_studies(path, {"": self})

    def as_dict(self) -> dict[str, Any]:
        """Everything, as what JSON can hold; ``from_dict`` reads it back."""
        return {
            "dense": {"accuracy": self.dense_accuracy, "median_ms": self.dense_ms},
            "rows": [_row_as_dict(row) for row in self.rows],
            "left_out": [asdict(one) for one in self.left_out],
            "conditions": dict(self.conditions),
        }

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Study:
        """The study that ``as_dict`` wrote down."""
        rows = tuple(_row_of(row) for row in facts["rows"])
        left_out = tuple(LeftOut(**one) for one in facts["left_out"])
        return cls(rows, left_out, facts["dense"]["accuracy"], facts["dense"]["median_ms"], facts["conditions"])

    def with_speeds(self, timed: Study) -> Study:
        """This study with the speeds that another one of the same network measured; of trials that it lacks there are none.

        Accuracies and speeds may so be measured apart: on several machines, or while a machine is busy and while it is not.
        """
        speeds = {row.trial: row.speed for row in timed.rows}
        rows = tuple(replace(row, speed=speeds.get(row.trial)) for row in self.rows)
        return replace(self, rows=rows, dense_ms=timed.dense_ms, conditions={**self.conditions, "speed": timed.conditions})

    def joined(self, others: Iterable[Study]) -> Study:
        """This study with the rows of others of the same network after its own."""
        every = [self, *others]
        left_out = dict.fromkeys(one for study in every for one in study.left_out)
        return replace(self, rows=tuple(row for study in every for row in study.rows), left_out=tuple(left_out))

    def only(self, criteria: Sequence[str] = (), orders: Sequence[str] = ()) -> Study:
        """The part of the study with these criteria and orders (none named: all of them)."""
        rows = tuple(row for row in self.rows if (not criteria or row.trial.criterion in criteria)
                     and (not orders or row.trial.order in orders))  # fmt: skip
        if not rows:
            raise PruneError(f"The study has no row of {', '.join([*criteria, *orders])}.")
        return replace(self, rows=rows)


@dataclass(frozen=True)
class _Column:
    """A column of the table: its cells, and of which rows it says something that isn't taken for granted."""

    heading: str
    cell: Callable[[Study, Row], str]
    numeric: bool = True
    says: Callable[[Row], bool] = lambda row: True


def _has_accuracy(row: Row) -> bool:
    return row.accuracy is not None


def _has_speed(row: Row) -> bool:
    return row.speed is not None


def _has_order(row: Row) -> bool:
    return row.trial.order != AS_TRAINED


def _times(row: Row) -> float:
    assert row.speed is not None
    return row.speed.over_dense.median


COLUMNS = (
    _Column("pattern", lambda study, row: row.trial.pattern, numeric=False),
    _Column("asked", lambda study, row: f"{row.trial.sparsity:.0%}"),
    _Column("criterion", lambda study, row: row.trial.criterion, numeric=False),
    _Column("order", lambda study, row: row.trial.order, False, _has_order),
    _Column("zero", lambda study, row: f"{row.sparsity:.1%}"),
    _Column("L1 kept", lambda study, row: f"{row.kept_l1:.1%}"),
    _Column("accuracy", lambda study, row: "" if row.accuracy is None else f"{row.accuracy:.1%}", says=_has_accuracy),
    _Column("lost", lambda study, row: "" if row.accuracy is None else f"{100 * study.lost(row):.1f}", says=_has_accuracy),
    _Column("ms", lambda study, row: milliseconds(row.speed.median_ms) if row.speed else "", says=_has_speed),
    _Column("× dense", lambda study, row: f"{row.speed.over_dense.median:.2f}" if row.speed else "", says=_has_speed),
)
"""Of the table. ``lost`` is in points of accuracy, ``× dense`` the dense network's time ÷ this one's."""


def _row_as_dict(row: Row) -> dict[str, Any]:
    speed = row.speed and {"median_ms": row.speed.median_ms, "over_dense": row.speed.over_dense.median,
                           "quartiles": list(row.speed.over_dense.quartiles)}  # fmt: skip
    return {**asdict(row.trial), "zero": row.sparsity, "kept_l1": row.kept_l1, "layers": row.layers, "accuracy": row.accuracy,
            "speed": speed}  # fmt: skip


def _row_of(facts: Mapping[str, Any]) -> Row:
    trial = Trial(facts["pattern"], facts["sparsity"], facts["criterion"], facts["order"])
    speed = facts["speed"]
    timed = speed and Speed(speed["median_ms"], Ratio(speed["over_dense"], tuple(speed["quartiles"])))
    return Row(trial, facts["zero"], facts["kept_l1"], facts["layers"], facts["accuracy"], timed)
