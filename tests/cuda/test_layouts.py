"""Orders and ways over a whole network: the sum that is minimised is the sum of what runs, and no single order is cheaper."""

from __future__ import annotations

import random
from itertools import product

import pytest
import torch
from device_networks import network
from network_prices import RuledPrices
from torch import fx

from zellige.cuda.engine import prepare
from zellige.cuda.network.layers import FEATURES, TOKENS, Layer, layer_of
from zellige.cuda.network.layouts import PAIRS, Problem, _site, decide
from zellige.cuda.network.network import lower

CPU = torch.device("cpu")


def prepared(name: str) -> fx.Graph:
    return prepare(*network(name), torch.float16).graph


def random_prices(seed: int) -> RuledPrices:
    """Of each layer in each pair of orders something else."""
    generator = random.Random(seed)
    drawn: dict[tuple[str, ...], dict[tuple[str, str], float]] = {}

    def rule(layer: Layer, orders: tuple[str, str]) -> float:
        return drawn.setdefault(layer.names, {pair: generator.uniform(1, 5) for pair in PAIRS})[orders]

    return RuledPrices("columns", rule=rule, turn=generator.uniform(0.1, 3))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", ["encoder", "perceptron"])
def test_nothing_simple_is_cheaper(name: str, seed: int) -> None:
    """Neither tokens × features throughout nor any change of one layer; in a small network nothing is cheaper by more
    than a tenth."""
    graph, prices = prepared(name), random_prices(seed)
    sites = {node: _site(node, prices) for node in graph.nodes if layer_of(node)}
    problem = Problem(sites, graph, prices)
    best = {node: (one.reads, one.writes) for node, one in decide(graph, prices).items()}
    least = problem.cost(best)
    for node, site in sites.items():
        assert all(problem.cost(best | {node: pair}) >= least - 1e-9 for pair in site.choices)
    assert least <= problem.cost(dict.fromkeys(sites, (TOKENS, TOKENS))) + 1e-9
    if len(sites) <= 5:
        everything = product(*(site.choices for site in sites.values()))
        assert least <= min(problem.cost(dict(zip(sites, pairs, strict=True))) for pairs in everything) * 1.1


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", ["encoder", "decoder", "perceptron"])
def test_what_is_counted_is_what_is_turned(name: str, seed: int) -> None:
    """At one second for each turning and none for layers, the sum is the number of calls in the lowered network."""
    model, inputs = network(name)
    program = prepare(model, inputs, torch.float16)
    prices = RuledPrices("columns", rule=lambda layer, orders: 0.0, turn=1.0)
    decisions = decide(program.graph, random_prices(seed))
    sites = {node: _site(node, prices) for node in decisions}
    counted = Problem(sites, program.graph, prices).cost({node: (one.reads, one.writes) for node, one in decisions.items()})
    module = lower(program, decisions, CPU)
    assert counted == sum("transposed" in str(node.target) for node in module.graph.nodes)


@pytest.mark.parametrize("turn, wanted", [(0.01, FEATURES), (100.0, TOKENS)])
def test_a_costly_turning_is_left_out(turn: float, wanted: str) -> None:
    """Layers that read features × tokens faster do, unless the network's input had to be turned at a great price."""
    graph = prepared("encoder")
    decisions = decide(graph, RuledPrices("columns", rule=lambda layer, orders: 1.0 + (orders[0] == TOKENS), turn=turn))
    assert next(iter(decisions.values())).reads == wanted
    assert list(decisions.values())[1].reads == FEATURES
