"""What is told of a run: a row of figures now and then, to a CSV or JSON file, to TensorBoard, or to a bar on the terminal."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zellige.errors import TrainingError
from zellige.pack.atomic import check_place, write_atomically


@dataclass(frozen=True)
class Row:
    """How a run stands after a step. ``loss`` is the mean of the training loss since the row before; what wasn't measured is
    None. ``bits`` is the validation loss in bits, per byte for text. ``seconds`` counts interrupted parts of the run too."""

    step: int
    epoch: float
    learning_rate: float
    sparsity: float
    seconds: float
    loss: float | None = None
    validation_loss: float | None = None
    bits: float | None = None
    accuracy: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        measured = {"loss": self.loss, "validation": self.validation_loss, "bits": self.bits}
        parts = [f"{name} {value:.4f}" for name, value in measured.items() if value is not None]
        if self.accuracy is not None:
            parts.append(f"accuracy {self.accuracy:.2%}")
        return ", ".join([*parts, f"sparsity {self.sparsity:.1%}"])


@dataclass(frozen=True)
class Moment:
    """What a progress bar shows after every step: steps done and all there are, the last row, and the seconds left."""

    step: int
    steps: int
    row: Row | None
    seconds_left: float


Observer = Callable[[Moment], None]


def _as_csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Row.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.as_dict() for row in rows)
    return text.getvalue()


def _as_json(rows: Sequence[Row]) -> str:
    return json.dumps([row.as_dict() for row in rows], indent=1) + "\n"


FORMS: dict[str, Callable[[Sequence[Row]], str]] = {".csv": _as_csv, ".json": _as_json}
"""How a log is written, by the suffix of its file."""


def checked_log(path: str | os.PathLike[str]) -> Path:
    """Raises ``TrainingError`` if a log can't be written in this form, and ``ZelligeError`` if it can't be there."""
    log = Path(path)
    if log.suffix not in FORMS:
        raise TrainingError(f"a log is a file that ends in {' or '.join(FORMS)}, not {log}")
    check_place(log)
    return log


def write_log(path: Path, rows: Sequence[Row]) -> None:
    """Write all rows so far, whole or not at all: a run that is taken up again leaves no row twice."""
    write_atomically(path, [FORMS[path.suffix](rows).encode()])


def tensorboard_writer(directory: str | os.PathLike[str]) -> Callable[[Row], None]:
    """What writes rows for TensorBoard.

    Raises:
        TrainingError: it is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError("tensorboard is not installed: pip install tensorboard") from error
    writer: Any = SummaryWriter(os.fspath(directory))

    def write(row: Row) -> None:
        for name, value in row.as_dict().items():
            if name != "step" and value is not None:
                writer.add_scalar(name, value, row.step)
        writer.flush()

    return write


@contextmanager
def bar(what: str) -> Iterator[Observer]:
    """A progress bar on a terminal, with loss, accuracy, sparsity and the time left; nothing elsewhere, or without rich."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError:
        yield lambda moment: None
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda moment: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeElapsedColumn(),
               TextColumn("{task.fields[left]} left  {task.fields[figures]}"))
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=None, left="", figures="")

        def show(moment: Moment) -> None:
            progress.update(task, completed=moment.step, total=moment.steps, left=in_words(moment.seconds_left),
                            figures=str(moment.row or ""))

        yield show


def in_words(seconds: float) -> str:
    """A time to read.

    >>> in_words(59.6), in_words(3700)
    ('1:00', '1:01:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
