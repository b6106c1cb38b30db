"""At which sparsity a layer would gain, before anything is pruned: the planner asked about zeros that are not there.

Every convolution and linear layer gets weights of which random 8×8 blocks are zero, more at each level; the plan of each
level says what every layer would cost. These are the model's cycles, not measurements.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from zellige.cpu.isa import Isa
from zellige.cpu.known_costs import known_costs
from zellige.cpu.lower.lowering import Options
from zellige.cpu.plan import plan_graph
from zellige.graph.ir import Graph

BLOCK = 8
LEVELS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9)
GAIN = 0.95  # of the dense cycles, or fewer: less is lost in the noise


@dataclass(frozen=True)
class BreakEven:
    """One layer: its path and cycles when dense, and the dense cycles over those at every level of ``LEVELS``.

    ``sparsity`` is the lowest level at which the layer gains 5 %; None if none does.
    """

    name: str
    op: str
    path: str
    cycles: float
    speedups: tuple[float, ...]
    sparsity: float | None


def break_even(graph: Graph, isa: Isa, options: Options | None = None) -> list[BreakEven]:
    """The layers of an optimised graph that have weights, in order; by this machine's constants, if ``options`` have none."""
    asked = options or Options()
    asked = replace(asked, tune="model", costs=asked.costs or known_costs(isa).costs)
    plans = [plan_graph(thinned(graph, level), isa, asked) for level in LEVELS]
    rows = []
    for layers in zip(*(plan.layers for plan in plans), strict=True):
        if not layers[0].macs:
            continue
        speedups = tuple(layers[0].cycles / layer.cycles for layer in layers)
        gains = [level for level, speedup in zip(LEVELS, speedups, strict=True) if speedup >= 1 / GAIN]
        rows.append(BreakEven(layers[0].name, layers[0].op, layers[0].path, layers[0].cycles, speedups, min(gains, default=None)))
    return rows


def thinned(graph: Graph, sparsity: float) -> Graph:
    """The graph with ones for weights, and zeros in random blocks of its convolutions and linear layers."""
    constants = dict(graph.constants)
    for node in graph:
        if node.op in ("conv2d", "linear"):
            constants[node.inputs[1]] = blocks_left(graph.type_of(node.inputs[1]).shape, sparsity)
    return replace(graph, constants=constants)


def blocks_left(shape: tuple[int, ...], sparsity: float) -> np.ndarray:
    """Ones of which ⌊sparsity × blocks⌋ random blocks of 8 × 8 rows and columns are zero, all taps together."""
    high, wide = -(-shape[0] // BLOCK), -(-shape[1] // BLOCK)
    mask = np.ones(high * wide, np.float32)
    mask[np.random.default_rng(0).permutation(high * wide)[:int(sparsity * high * wide)]] = 0
    rows = np.repeat(mask.reshape(high, wide), BLOCK, axis=0)[:shape[0]]
    matrix = np.repeat(rows, BLOCK, axis=1)[:, :shape[1]]
    return np.ascontiguousarray(np.broadcast_to(matrix.reshape(*matrix.shape, *[1] * (len(shape) - 2)), shape))
