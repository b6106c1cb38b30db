"""Whole networks against one another: what was decided layer by layer runs only if it is faster than the network left dense.

Prices are of layers alone, with inputs that come from memory; in a network they find them in the L2 cache, and what lies between
small layers counts as much as they do. So the sum of the prices may mislead, and the last word has the time of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import fx

from zellige.cuda.network.fusion import ROUNDS, Module, fuse
from zellige.cuda.network.layouts import Decision
from zellige.cuda.network.network import lower
from zellige.cuda.network.trace import Program, static_inputs

DECIDED = "as decided"
TURNS = 3
"""Of each network, one after the other: clocks that drift drift for all."""

Decisions = Mapping[fx.Node, Decision]


@dataclass(frozen=True)
class Whole:
    """A network by its decisions: lowered, and what runs of it, in which form."""

    decisions: Decisions
    lowered: fx.GraphModule
    module: Module
    form: str


def made(program: Program, decisions: Decisions, runner: Any, device: torch.device) -> Whole:
    lowered = lower(program, decisions, device)
    seconds = sum(decision.choice.seconds for decision in decisions.values())
    return Whole(decisions, lowered, *fuse(lowered, program, seconds, runner, device))


def fastest_whole(program: Program, decided: Decisions, others: Callable[[], Mapping[str, Decisions]], runner: Any,
                  device: torch.device) -> Whole:
    """The network as decided, or another that takes less; ``form`` tells all times. Nothing is timed without a graph, and where
    memory does not hold them all ``form`` says so."""
    first = made(program, decided, runner, device)
    if not runner.TIMED:
        return first
    try:
        return _compared(program, first, others, runner, device)
    except torch.OutOfMemoryError:
        pass
    torch.cuda.empty_cache()  # here, where the frames that hold tensors are gone
    return replace(first, form=f"{first.form}; not compared with the network dense: not enough memory for both")


def _compared(program: Program, first: Whole, others: Callable[[], Mapping[str, Decisions]], runner: Any,
              device: torch.device) -> Whole:
    wholes, inputs = {DECIDED: first}, static_inputs(program, device)
    for name, decisions in others().items():
        if all(_ways(decisions) != _ways(whole.decisions) for whole in wholes.values()):
            wholes[name] = made(program, decisions, runner, device)
    if len(wholes) == 1:
        return first
    running = {name: runner(whole.module, inputs) for name, whole in wholes.items()}
    laps: dict[str, list[float]] = {name: [] for name in wholes}
    for _ in range(TURNS):
        for name, one in running.items():
            laps[name].append(one.seconds(ROUNDS))
    times = {name: median(seconds) for name, seconds in laps.items()}
    best = min(times, key=times.__getitem__)  # of equals what was decided
    told = ", ".join(f"{name} {1e6 * seconds:.0f} µs" for name, seconds in times.items())
    return replace(wholes[best], form=f"{wholes[best].form}; the network {best} ({told})")


def _ways(decisions: Decisions) -> list[tuple[object, ...]]:
    return [(one.reads, one.writes, one.choice.way, one.choice.config) for one in decisions.values()]
