"""What a network's layers would take at each density, on the CPU: the planner asked about zeros that are not there yet.

Convolutions and linear layers get ones for weights, and random zeros in the pattern that they are to be pruned in, more at each
level; the plan of each level says what every layer is expected to take. Between levels costs are straight. These are cycles of
one core by the cost model, not measurements; shares of them are shares of time, as far as the model holds.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from zellige.cpu.batch import expected_cycles, plan_batch
from zellige.cpu.isa import Isa
from zellige.cpu.known_costs import known_costs
from zellige.cpu.lower.lowering import Options
from zellige.cpu.plan import Plan
from zellige.errors import PruneError
from zellige.graph.ir import Graph, Node
from zellige.patterns import Pattern, WeightShape
from zellige.prune import Price

LEVELS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
WEIGHT = ".weight"  # what a layer's name becomes the name of its weight with


def latency_price(graph: Graph, pattern: Pattern, isa: Isa, options: Options | None = None) -> Price:
    """What the layers of an optimised graph cost, by the names that PyTorch has for them. Those that it lacks cost nothing.

    Raises what ``plan_batch`` raises.
    """
    asked = options or Options()
    asked = replace(asked, tune="model", costs=asked.costs or known_costs(isa).costs)
    points: dict[str, list[tuple[float, float]]] = {}
    whole = 0.0
    for level in LEVELS:
        thin = thinned(graph, pattern, level)
        plan = plan_batch(thin, isa, asked)
        whole = whole or expected_cycles(plan)
        for layer, cycles in cycles_by_layer(thin, plan).items():
            density = np.count_nonzero(thin.constants[layer + WEIGHT]) / thin.constants[layer + WEIGHT].size
            points.setdefault(layer, []).append((density, cycles))

    def cost(layer: str, density: float) -> float:
        known = sorted(points.get(layer, [(1.0, 0.0)]))
        return float(np.interp(density, [at for at, _ in known], [cycles for _, cycles in known]))

    return Price(cost, whole)


def cycles_by_layer(graph: Graph, plan: Plan) -> dict[str, float]:
    """The cycles of each layer's nodes, together where several use its weight."""
    weights = {node.name: node.inputs[1].removesuffix(WEIGHT) for node in graph if has_weight(node)}
    found: dict[str, float] = {}
    for row in plan.layers:
        if row.name in weights:
            found[weights[row.name]] = found.get(weights[row.name], 0.0) + row.cycles
    return found


def has_weight(node: Node) -> bool:
    """Whether a node is a layer that can be pruned, whose weight still has PyTorch's name."""
    return node.op in ("conv2d", "linear") and node.inputs[1].endswith(WEIGHT)


def thinned(graph: Graph, pattern: Pattern, sparsity: float) -> Graph:
    """The graph with ones for weights, and zeros among them at this sparsity where the pattern can have it."""
    constants = dict(graph.constants)
    for node in graph:
        if has_weight(node):
            dims = graph.type_of(node.inputs[1]).shape
            groups = node.attributes["groups"] if node.op == "conv2d" else 1
            assert isinstance(groups, int)
            constants[node.inputs[1]] = random_zeros(WeightShape(dims, groups), pattern, sparsity)
    return replace(graph, constants=constants)


def random_zeros(shape: WeightShape, pattern: Pattern, sparsity: float) -> np.ndarray:
    """Ones of which the pattern makes some zero at random; all ones where it refuses the shape or the sparsity."""
    ones = np.ones(shape.dims, np.float32)
    if sparsity == 0 or pattern.refusal(shape):
        return ones
    try:
        mask = pattern.random_mask(shape, sparsity, torch.Generator().manual_seed(0))
    except PruneError:
        return ones
    return ones * mask.numpy()
