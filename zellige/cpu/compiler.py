"""The way from a graph to code: plan it, emit the kernels that the plan needs, take machine code from the cache or make it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from zellige.cpu import host
from zellige.cpu.batch import plan_batch
from zellige.cpu.calls import Plan
from zellige.cpu.code import build_kernels
from zellige.cpu.debug import PLAN, debug
from zellige.cpu.heap import trim_heap
from zellige.cpu.isa import ISAS, Isa
from zellige.cpu.kernels.kernel import Kernel
from zellige.cpu.known_costs import known_costs
from zellige.cpu.lower.lowering import Options
from zellige.cpu.program import Tables
from zellige.cpu.toolchain import Library
from zellige.errors import CompileError
from zellige.graph.ir import Graph

TUNES = ("model", "measure")


@dataclass(frozen=True, eq=False)
class Compiled:
    """A plan with its tables in memory and the addresses of its kernels."""

    isa: Isa
    plan: Plan
    tables: Tables
    code: Mapping[Kernel, int]
    libraries: tuple[Library, ...]


def find_isa(target: str) -> Isa:
    """``cpu`` is the best that this machine runs, ``cpu:NAME`` a named instruction set."""
    if target == "cpu":
        return host.host_isa()
    named = {f"cpu:{name}": isa for name, isa in ISAS.items()}
    if not isinstance(target, str) or target not in named:
        raise CompileError(f"unknown target {target!r}: expected cpu, {', '.join(named)}")
    return named[target]


def plan_for(graph: Graph, isa: Isa, options: Options) -> Plan:
    """The plan for an instruction set, by this machine's constants if it runs it; nothing is compiled, unless to time it."""
    if options.tune not in TUNES:
        raise CompileError(f"tune must be one of {', '.join(TUNES)}; got {options.tune!r}")
    return plan_batch(graph, isa, replace(options, costs=options.costs or known_costs(isa).costs))


def compile_graph(graph: Graph, target: str, options: Options) -> Compiled:
    """Compile for this machine. Raises ``CompileError`` if it can't run the target's code."""
    isa = find_isa(target)
    host.require(isa)
    plan = plan_for(graph, isa, options)
    debug(PLAN, "plan", lambda: str(plan))
    trim_heap()  # all weights are there a second time until the tables are filled
    code, libraries = build_kernels(plan.kernels, isa)
    tables = Tables(plan)
    trim_heap()
    return Compiled(isa, plan, tables, code, libraries)
