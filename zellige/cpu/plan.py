"""Graph → plan: every node lowered in order, then the margins that readers need set to zero."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from zellige.cpu.calls import Call, Place, Plan
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.copy import Fill
from zellige.cpu.layout import Planes
from zellige.cpu.lower.lowering import Lowering, Options
from zellige.cpu.lower.moves import lower_outputs
from zellige.cpu.lower.table import LOWERINGS
from zellige.errors import CompileError
from zellige.graph.ir import Graph, Node

Lower = Callable[[Lowering, Node], None]


def plan_graph(graph: Graph, isa: Isa, options: Options | None = None) -> Plan:
    """The plan of an optimised graph. Raises one ``CompileError`` that names every operator without a kernel."""
    unknown = [f"{node.name} ({node.op})" for node in graph if node.op not in LOWERINGS]
    if unknown:
        raise CompileError(f"no CPU kernel for {', '.join(unknown)}")
    lowering = Lowering(graph, isa, options or Options())
    for node in graph:
        LOWERINGS[node.op](lowering, node)
    lower_outputs(lowering)
    return lowering.plan
