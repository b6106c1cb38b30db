"""How long every phase takes, and what bounds it, from when cores and channels were busy.

A phase's time is from the end of the phases before it to its own end, so times add up to the program's: what is done for it
earlier (packets that are fetched ahead, above all) costs it nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from zellige.aie2.cycles import StepCost
from zellige.aie2.packet import Packet
from zellige.aie2.program import Program, Start
from zellige.aie2.simulate import EXTERNAL, Run

BUSY = 0.6
"""The share of a phase's time that something must work to be what bounds it; if nothing does, filling and draining is."""

EVEN = 0.75
"""The share of the busiest core's work that cores do on average, where they have even shares."""

BOUNDS: Mapping[str, str] = {"products": "MACs", "loads": "loads", "shuffles": "shuffles", "overhead": "step overhead"}
"""What a core's steps are bound by, in the words of ``cycles.StepCost`` and of reports."""


@dataclass(frozen=True)
class PhaseTime:
    """A phase: ``cycles``, from the end of the phases before to its own ``end``; what bounds it; and the shares of that time in
    which the busiest core, the busiest stream of a shim and the busiest other stream worked, and in which external memory couldn't
    serve all."""

    name: str
    end: float
    cycles: float
    bound: str
    cores: float
    shims: float
    streams: float
    external: float


def phase_times(program: Program, run: Run, cost: Callable[[Packet], StepCost]) -> list[PhaseTime]:
    """The phases of a program that ran, in the order in which the sequence begins them. ``cost``: of a step."""
    names = list(dict.fromkeys(phase_of(command.task) for command in program.sequence if isinstance(command, Start)))
    done = _ends(run)
    ends = np.maximum.accumulate([done.get(name, 0.0) for name in names])
    starts = np.concatenate([[0.0], ends[:-1]])
    busy = {name: lane.busy_until(ends) - lane.busy_until(starts) for name, lane in run.lanes.items()}
    cores = np.array([busy[name] for name in run.packets]).reshape(-1, len(names))
    shims = [str(flow.source) for flow in program.flows if 0 in (flow.source.tile.row, flow.destinations[0].tile.row)]
    streams = [str(flow.source) for flow in program.flows if str(flow.source) not in shims]
    length = np.maximum(ends - starts, 1e-9)
    most = {kind: np.array([busy[name] for name in of] or [np.zeros(len(names))]).max(axis=0) / length
            for kind, of in (("shims", shims), ("streams", streams))}  # fmt: skip
    found = []
    for at, name in enumerate(names):
        work = cores[:, at] / length[at] if len(cores) else np.zeros(1)
        shares = {"cores": float(work.max()), **{kind: float(share[at]) for kind, share in most.items()},
                  "external": float(busy[EXTERNAL][at] / length[at])}  # fmt: skip
        bound = _bound(shares, float(work.mean()))
        if bound == "cores":
            bound = _steps(run, name, int(cores[:, at].argmax()), cost)
        found.append(PhaseTime(name, float(ends[at]), float(ends[at] - starts[at]), bound, **shares))
    return found


def phase_of(task: str) -> str:
    """The phase of a task, by its name.

    >>> phase_of("layer1.0.conv2/packets in 3.1")
    'layer1.0.conv2'
    """
    return task.split("/")[0]


def _ends(run: Run) -> dict[str, float]:
    """When the last span of every phase ended."""
    found: dict[str, float] = {}
    for lane in run.lanes.values():
        for task, end in lane.last_ends().items():
            found[phase_of(task)] = max(found.get(phase_of(task), 0.0), end)
    return found


def _bound(shares: Mapping[str, float], mean: float) -> str:
    """What bounds a phase: the busiest of what it needs. ``mean``: the share of the time in which cores worked, on average."""
    kind = max(("cores", "shims", "streams"), key=lambda kind: shares[kind])
    if kind == "shims" and shares["external"] >= BUSY * shares["shims"]:
        return "DDR"
    if shares[kind] < BUSY:
        return "fill/drain"
    if kind == "cores":
        return "cores" if mean >= EVEN * shares["cores"] else "imbalance"
    return {"shims": "shim", "streams": "stream"}[kind]


def _steps(run: Run, phase: str, core: int, cost: Callable[[Packet], StepCost]) -> str:
    """What the steps of a core are bound by in a phase: those of the first packet that it gets."""
    packets = list(run.packets.values())[core]
    first = next((packet for task, packet in packets.items() if phase_of(task) == phase), None)
    return BOUNDS["overhead"] if first is None else BOUNDS[cost(first).bound]
