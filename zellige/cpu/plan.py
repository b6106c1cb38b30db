"""Graph → plan: every node lowered in order, and the margins that readers need set to zero."""

from __future__ import annotations

from zellige.cpu.calls import Call, Place, Plan, Scratch
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.copy import FillKernel
from zellige.cpu.layout import Layout, Planes
from zellige.cpu.lower.lowering import Lowering, Options
from zellige.cpu.lower.moves import lower_inputs, lower_outputs
from zellige.cpu.lower.table import EPILOGUES, LOWERINGS, MOST_ADDS, TAKE_CONSTANTS
from zellige.cpu.tables.windows import fill_work
from zellige.errors import CompileError
from zellige.graph.ir import Graph, Node

DTYPE = "f32"
MARGIN_CYCLES = 10  # of one line of a margin: few are in the cache


def plan_graph(graph: Graph, isa: Isa, options: Options | None = None) -> Plan:
    """The plan of an optimised graph. Raises one ``CompileError`` that names every node without a kernel."""
    lacking = [f"{node.name} ({reason})" for node in graph if (reason := lacks(graph, node))]
    lacking += [f"{name} ({kind})" for name, kind in graph.inputs.items() if kind.dtype != DTYPE]
    if lacking:
        raise CompileError(f"no CPU kernel for {', '.join(lacking)}")
    lowering = Lowering(graph, isa, options or Options())
    lower_inputs(lowering)
    for node in graph:
        LOWERINGS[node.op](lowering, node)
    lower_outputs(lowering)
    lowering.plan.calls = with_margins(lowering.plan.calls, lowering.storage.layouts)
    share_scratch(lowering.plan.calls)
    return lowering.plan


def lacks(graph: Graph, node: Node) -> str:
    """What of a node no kernel computes; empty if there is one."""
    if node.op not in LOWERINGS:
        return node.op
    if node.type.dtype != DTYPE:
        return f"{node.op} in {node.type.dtype}"
    if node.inputs[0] in graph.constants and node.op not in TAKE_CONSTANTS:
        return f"{node.op} of a constant"
    steps = [step.op for step in node.epilogue]
    if not set(steps) <= set(EPILOGUES.get(node.op, ())) or steps.count("add") > MOST_ADDS:
        return f"{node.op} followed by {', '.join(map(str, node.epilogue))}"
    return ""


def with_margins(calls: list[Call], layouts: dict[str, Layout]) -> list[Call]:
    """The calls, and before the first that touches a buffer the one that clears its margins.

    Both run at the same time: what writes pixels never writes margins, but for the ends of rows.
    """
    result: list[Call] = []
    clear = {name: layout for name, layout in layouts.items() if isinstance(layout, Planes) and layout.margins.any}
    for call in calls:
        for place in call.places():
            layout = clear.pop(place.buffer, None)
            if layout is None:
                continue
            work = fill_work(layout)
            if work.items:
                result.append(Call(FillKernel(), {"target": Place(place.buffer, layout.head), **work.tables},
                                   (work.costs * MARGIN_CYCLES).astype(int), "margins", barrier=False))
        result.append(call)
    return result


def share_scratch(calls: list[Call]) -> None:
    """Give all calls as much scratch memory as the one that needs most: each thread has the same part of it throughout, which
    its own caches keep."""
    most = max((slot.elements for call in calls for slot in call.slots.values() if isinstance(slot, Scratch)), default=0)
    for call in calls:
        if "scratch" in call.slots:
            call.slots |= {"scratch": Scratch(most), "scratch_bytes": 4 * most}
