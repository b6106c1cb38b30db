"""The plan as data: what runs, on what, in which order, before any address is known.

A plan is the same for every number of threads. It becomes native memory in ``program.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from zellige.cpu.costs import LEVEL3, Costs, Demand, family_of
from zellige.cpu.kernels.kernel import Kernel
from zellige.cpu.layout import Layout


@dataclass(frozen=True)
class Place:
    """An address in the arena: so many elements into a buffer."""

    buffer: str
    offset: int = 0

    def __add__(self, elements: int) -> Place:
        return Place(self.buffer, self.offset + elements)


@dataclass(frozen=True)
class External:
    """Memory of the caller: ``kind`` is ``"input"`` or ``"output"``, ``index`` its position in the graph's list."""

    kind: str
    index: int


@dataclass(frozen=True)
class Scratch:
    """Memory of which every thread has ``elements`` of its own, one after another: the address of thread 0's."""

    elements: int


Slot = int | np.ndarray | Place | External | Scratch


@dataclass(eq=False)
class Call:
    """One kernel over a list of work items.

    ``costs`` has one number per item, in cycles as the model has it: what a thread's share is measured by. The next call
    waits until all threads are done with this one if ``barrier`` is set. ``map_bytes`` are those of the values it reads and writes.
    """

    kernel: Kernel
    slots: dict[str, Slot]
    costs: np.ndarray
    label: str
    barrier: bool = True
    map_bytes: int = 0

    @property
    def cycles(self) -> float:
        return float(self.costs.sum())

    @property
    def demand(self) -> Demand:
        """What the call asks of a machine, as the cost model takes it."""
        tables = {id(slot): slot.nbytes for slot in self.slots.values() if isinstance(slot, np.ndarray)}
        return Demand(family_of(self.kernel), self.cycles, sum(tables.values()), self.map_bytes)

    @property
    def meets_caller(self) -> bool:
        """Whether it reads or writes the caller's memory."""
        return any(isinstance(slot, External) for slot in self.slots.values())

    def places(self) -> list[Place]:
        return [slot for slot in self.slots.values() if isinstance(slot, Place)]


@dataclass(frozen=True)
class Stored:
    """Where a value lies: pixel (0, 0) of channel 0, or element 0, is at ``place``; a constant brings its own table."""

    place: Place | External | np.ndarray
    layout: Layout


@dataclass(frozen=True)
class LayerPlan:
    """What the planner decided for one node, and why. ``macs`` counts the multiplications of the dense operation, ``cycles`` what
    the cost model expects of one core."""

    name: str
    op: str
    shape: tuple[int, ...]
    pattern: str
    density: float
    path: str
    reason: str
    macs: int
    kept_macs: int
    cycles: float


@dataclass(eq=False)
class Plan:
    """Everything that was decided: calls in order, buffers and their sizes in elements, a line per layer; and the ``costs`` by
    which it was, with the level of memory that is the ``home`` of the network's weights between two runs.

    The calls run ``parts`` times, on one equal part of the caller's arrays after another; ``batch`` says why, where there are
    several images.
    """

    isa: str
    calls: list[Call] = field(default_factory=list)
    buffers: dict[str, int] = field(default_factory=dict)
    layers: list[LayerPlan] = field(default_factory=list)
    costs: Costs = field(default_factory=Costs)
    home: str = LEVEL3
    parts: int = 1
    batch: str = ""

    @property
    def kernels(self) -> list[Kernel]:
        """The kernel variants that the plan needs, each once, in order of first use."""
        return list(dict.fromkeys(call.kernel for call in self.calls))

    def expected_cycles(self, call: Call) -> float:
        """What the cost model expects a call to take on one core."""
        return self.costs.cycles(call.demand, self.home)

    def __str__(self) -> str:
        lines = [f"plan for {self.isa}: {len(self.calls)} calls, {len(self.kernels)} kernels, {len(self.buffers)} buffers"]
        for number, call in enumerate(self.calls):
            slots = ", ".join(f"{name}={_short(slot)}" for name, slot in call.slots.items())
            wait = "" if call.barrier else "  (no barrier)"
            lines.append(f"{number:4} {call.label}: {call.kernel.symbol} × {len(call.costs)} items, "
                         f"{call.cycles:.0f} cycles{wait}\n       {slots}")
        return "\n".join(lines)


def _short(slot: Slot) -> str:
    if isinstance(slot, np.ndarray):
        return f"{slot.dtype}{list(slot.shape)}"
    if isinstance(slot, Place):
        return f"{slot.buffer}+{slot.offset}"
    return str(slot)
