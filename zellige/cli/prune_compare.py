"""``zellige prune --compare``: prune copies of the network in many ways, and say what each keeps and how fast it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zellige.cli.network import NetworkChoice
from zellige.errors import ZelligeError
from zellige.terminal import show, working, write_json


@dataclass(frozen=True)
class Question:
    """What is to be compared: names from the command line; none of a kind means the study's own."""

    patterns: Sequence[str]
    sparsities: Sequence[float]
    criteria: Sequence[str]
    permuted: bool
    scope: str
    targets: Sequence[str] | None
    ignore: Sequence[str] | None
    evaluate: str | None
    data: str | None
    statistics: bool
    threads: int | None


def compare_patterns(network: NetworkChoice, asked: Question, plot: Path | None, json: Path | None) -> None:
    """Run the study, print its table, write what was asked for."""
    import zellige as zl
    from zellige.figures import figure_file
    from zellige.models import warm_statistics
    from zellige.study.axes import AS_TRAINED, PATTERNS, PERMUTED, SPARSITIES

    if plot is not None:
        figure_file(plot)  # which is asked before the work and not after it
    evaluate = None if asked.evaluate is None else function_named("--evaluate", asked.evaluate)
    data, loss = (None, None) if asked.data is None else calibration_named(asked.data)
    batches = None if data is None else list(data)
    named = network.load()

    def recover(model: Any) -> None:
        if asked.statistics and batches is not None:
            zl.take_statistics(model, batches, loss)
        elif named.random_weights:
            warm_statistics(model, named.example_inputs)

    with working("comparing") as progress:
        study = zl.compare(
            named.model, asked.patterns or PATTERNS, asked.sparsities or SPARSITIES, named.example_inputs, criteria=asked.criteria,
            orders=(AS_TRAINED, PERMUTED) if asked.permuted else (AS_TRAINED,),
            evaluate=evaluate, data=batches, loss=loss, scope=asked.scope, targets=asked.targets, ignore=asked.ignore,
            threads=asked.threads, progress=progress,
            recover=recover,
        )  # fmt: skip
    write_json(json, {"model": named.name, "weights": named.weights, **study.as_dict()})
    show(study.table(f"{named.name}, pruned in several ways"))
    print("\n".join([*study.notes(), f"weights: {named.weights}"]))
    best = "; ".join(str(row.trial) for row in study.best())
    print(f"what no other one beats, the slowest first: {best or 'nothing but the dense network'}")
    if plot is not None:
        print(f"drawn to {study.plot(plot)}")


def function_named(option: str, name: str) -> Any:
    """The user's function that an option names."""
    from zellige.models.functions import find_function

    return find_function(name, f"{option} ", "mynet.data:function")


def calibration_named(name: str) -> tuple[Any, Any]:
    """The batches and the loss that a function of the user's gives.

    Raises ``ZelligeError`` if it gives something else.
    """
    from zellige.models.functions import call_function

    made = call_function(function_named("--data", name), f"--data {name}")
    if not isinstance(made, tuple) or len(made) != 2:
        raise ZelligeError(f"--data {name} gave {type(made).__name__}; expected (batches, loss), zl.prune's data and loss")
    return made
