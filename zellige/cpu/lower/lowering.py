"""What every lowering needs at hand: the graph, where values lie, and the plan that grows call by call."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from zellige.cpu.calls import Call, External, LayerPlan, Place, Plan, Slot, Stored
from zellige.cpu.costs import Costs
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.epilogue import ADD, Epilogue, activation
from zellige.cpu.kernels.kernel import Kernel
from zellige.cpu.layout import Planes
from zellige.cpu.storage import Storage
from zellige.errors import CompileError
from zellige.graph.ir import Graph, Node


@dataclass(eq=False)
class Options:
    """What the caller of ``compile`` asked for.

    ``threads`` time paths with ``tune="measure"`` (None: as many as there are CPUs); ``costs`` are the model's constants (None:
    those of this machine when code is made to run here, else the defaults); ``path`` is taken wherever a layer has it; ``images``
    of a batch are run at a time (None: as many as the model has it).
    """

    winograd: bool = True
    tune: str = "model"
    threads: int | None = None
    costs: Costs | None = None
    path: str | None = None
    images: int | None = None


@dataclass(eq=False)
class Lowering:
    """One graph on its way to a plan."""

    graph: Graph
    isa: Isa
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        self.included: set[str] = set()  # nodes whose work the calls of others do
        self.storage = Storage(self.graph, self.isa.masks, self.options.winograd)
        costs = self.options.costs or Costs()
        weights = sum(4 * int(np.count_nonzero(constant)) for constant in self.graph.constants.values())
        self.plan = Plan(self.isa.name, buffers=self.storage.sizes, costs=costs, home=costs.levels.holding(weights))

    def constant(self, name: str) -> np.ndarray:
        """The array of an operand that must be known now."""
        if name not in self.graph.constants:
            raise CompileError(f"{name} must be a constant to be compiled; it is computed while the network runs")
        return np.ascontiguousarray(self.graph.constants[name], dtype=np.float32)

    def call(self, node: Node, kernel: Kernel, slots: dict[str, Slot], costs: np.ndarray, barrier: bool = True) -> None:
        """Append a call; slots that a variant does not use are left out and become 0."""
        unknown = set(slots) - set(kernel.SLOTS)
        assert not unknown, f"{type(kernel).__name__} has no slots {sorted(unknown)}"
        if len(costs):
            self.plan.calls.append(Call(kernel, slots, np.asarray(costs, np.int64), node.name, barrier,
                                        self._map_bytes(node, slots)))

    def _map_bytes(self, node: Node, slots: dict[str, Slot]) -> int:
        """The bytes of the values that slots point to: a node's own and its operands', which may be parts of a buffer, or whole
        buffers."""
        elements = {stored.place: stored.layout.elements for stored in self._values(node)
                    if isinstance(stored.place, Place | External)}
        buffers = {slot: elements.get(slot, self.plan.buffers.get(slot.buffer, 0) if isinstance(slot, Place) else 0)
                   for slot in slots.values() if isinstance(slot, Place | External)}
        return 4 * sum(buffers.values())

    def _values(self, node: Node) -> list[Stored]:
        """What a node computes, and all that it reads but constants."""
        return [self.storage[name] for name in dict.fromkeys((node.name, *node.operands)) if name not in self.graph.constants]

    def map_bytes(self, node: Node) -> int:
        """The bytes of all that a node reads, but constants, and of what it computes."""
        return 4 * sum(stored.layout.elements for stored in self._values(node))

    def layer(self, node: Node, path: str, reason: str, *, pattern: str = "", density: float = 1.0, macs: int = 0,
              first_call: int = 0) -> None:
        """Report what was decided for a node; its calls are those since ``first_call``."""
        cycles = sum(self.plan.expected_cycles(call) for call in self.plan.calls[first_call:])
        self.plan.layers.append(LayerPlan(node.name, node.op, node.type.shape, pattern, density, path, reason, macs,
                                          round(macs * density), cycles))

    def place(self, name: str) -> Slot:
        return self.storage[name].place

    def planes(self, name: str) -> Stored:
        """A value that must lie in planes."""
        stored = self.storage[name]
        assert isinstance(stored.layout, Planes), f"{name} does not lie in planes"
        return stored

    def epilogue(self, node: Node) -> Epilogue:
        """The node's epilogue as kernels have it."""
        return tuple(ADD if step.op == "add" else
                     activation(str(step.attributes["function"]),
                                {key: value for key, value in step.attributes.items() if key != "function"})  # type: ignore[misc]
                     for step in node.epilogue)

    def operands(self, node: Node) -> list[Stored]:
        """Where the values lie that the epilogue adds."""
        return [self.laid_out(step.operand) if step.operand in self.graph.constants else self.storage[step.operand]
                for step in node.epilogue if step.operand is not None]

    def laid_out(self, name: str) -> Stored:
        """A constant as a table that is laid out like a value of its shape."""
        layout = self.storage.layout(name)
        table = np.zeros(layout.elements, np.float32)[layout.head:]
        np.lib.stride_tricks.as_strided(table, layout.shape, [4 * step for step in layout.strides])[...] = self.constant(name)
        return Stored(table, layout)

    def operand_slots(self, node: Node) -> dict[str, Slot]:
        """The slots of the epilogue's operands: their places, and for planes the step from plane to plane."""
        slots: dict[str, Slot] = {}
        for number, stored in enumerate(self.operands(node)):
            slots[f"operand{number}"] = stored.place
            if isinstance(stored.layout, Planes):
                slots[f"operand{number}_plane"] = stored.layout.plane
        return slots
