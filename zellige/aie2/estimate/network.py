"""What a whole network should take on an overlay: lowered, and its program run for its time alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zellige.aie2.check import check
from zellige.aie2.cycles import step_cost, step_cycles
from zellige.aie2.estimate.phases import PhaseTime, phase_times
from zellige.aie2.lowering.lower import assemble
from zellige.aie2.lowering.plan import ResidencyChoice, plan
from zellige.aie2.lowering.residency_search import choose_residency
from zellige.aie2.lowering.zero_blocks import zero_blocks
from zellige.aie2.overlay import Overlay
from zellige.aie2.simulate import Run, simulate
from zellige.errors import CompileError
from zellige.graph.quantized import QuantizedGraph


@dataclass(frozen=True)
class NetworkTime:
    """The phases of a network, in order, and the run that they come from. ``clock`` in Hz; ``operators`` by phases."""

    phases: tuple[PhaseTime, ...]
    run: Run
    clock: float
    operators: Mapping[str, str]

    @property
    def total_ms(self) -> float:
        return self.run.cycles / self.clock * 1e3

    def ms(self, phase: PhaseTime) -> float:
        return phase.cycles / self.clock * 1e3


def network_time(graph: QuantizedGraph, on: Overlay, dense: bool = False,
                 choose_what_stays: ResidencyChoice = choose_residency) -> NetworkTime:  # fmt: skip
    """What a network should take. ``dense``: with a kernel that loads no offsets, for weights without blocks that are all zero.
    ``choose_what_stays``: in memory tiles between phases.

    Raises ``CompileError`` naming the first node that can't be placed, or what of the overlay the device can't hold or route; or,
    if ``dense``, a node with blocks of zeros, for which that kernel has no way.
    """
    if dense and (missing := zero_blocks(graph)):
        name, count = next(iter(missing.items()))
        raise CompileError(f"{graph.name}: node {name!r} has {count} blocks of 8 × 8 weights that are all zero; a kernel without "
                           "offsets can't leave them out, so estimate it with dense=False")
    planned = plan(graph, on, choose_what_stays)
    program = assemble(graph, on, planned)
    check(program, on.device)
    run = simulate(program, {}, None, lambda packet: step_cycles(packet, on.device, dense), device=on.device, move="packets")
    phases = phase_times(program, run, lambda packet: step_cost(packet, on.device, dense))
    operators = {phase.name: graph.nodes[phase.node].op for phase in planned.placement.phases}
    return NetworkTime(tuple(phases), run, on.device.clock, operators)
