"""How fast the networks of a study run when compiled: all of them in turn with the dense one, round after round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from zellige.bench.clock import ratio, run_rounds
from zellige.bench.comparison import OURS_DENSE
from zellige.bench.entrants import OurEntrant, enter_ours
from zellige.bench.on_cpu import OnCpu
from zellige.study.study import Speed
from zellige.study.trial import Trial


@dataclass
class Race:
    """The dense network and its pruned copies, each compiled, and held to PyTorch in float64, as it enters. The engines stay in
    memory, the modules need not."""

    dense: OurEntrant
    inputs: tuple[Any, ...]
    threads: int
    pruned: dict[Trial, OurEntrant] = field(default_factory=dict)

    @classmethod
    def of(cls, dense: nn.Module, inputs: tuple[Any, ...], threads: int) -> Race:
        return cls(_compiled(OURS_DENSE, dense, inputs, threads), inputs, threads)

    def enter(self, trial: Trial, model: nn.Module) -> None:
        """Raises ``VerificationError`` if the compiled network's answer is off."""
        self.pruned[trial] = _compiled(str(trial), model, self.inputs, self.threads)

    def run(self, rounds: int, progress: Callable[[str], None]) -> tuple[float, dict[Trial, Speed]]:
        """The dense network's median time in milliseconds, and the speeds of the others."""
        calls = {str(trial): one.runner.call for trial, one in self.pruned.items()}
        timings = run_rounds({OURS_DENSE: self.dense.runner.call, **calls}, rounds,
                             after_round=lambda done: progress(f"timing: round {done} of {rounds}"))  # fmt: skip
        dense = timings[OURS_DENSE]
        speeds = {trial: Speed(timings[str(trial)].median_ms, ratio([dense], timings[str(trial)])) for trial in self.pruned}
        return dense.median_ms, speeds


def _compiled(name: str, model: nn.Module, inputs: tuple[Any, ...], threads: int) -> OurEntrant:
    return enter_ours(name, model, inputs, OnCpu(threads))
