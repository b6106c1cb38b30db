"""Which order each activation has, and how each layer runs in it: decided over the whole network, by what everything costs.

A layer may read tokens × features or features × tokens, and write either; each of the four has a price, and so has turning an
activation that is wanted in another order than it was made in (once for all its readers). The sum is minimised by descent: layer
after layer takes the pair of orders that makes the sum least, until none changes. That may end where only several changes
together would help, so it is started from tokens everywhere, from features everywhere, and from each layer's own best; the
cheapest end counts. Prices are measured on a GPU (``prices.py``), and given by hand in tests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Protocol

from torch import fx

from zellige.cuda.layers.choices import Choice
from zellige.cuda.network.layers import ORDERS, TOKENS, Layer, WithWeights, layer_of, lead_of, shape_of, tokens_of

MOST_SWEEPS = 20
Orders = tuple[str, str]
"""Of what a layer reads, and of what it writes."""

PAIRS: tuple[Orders, ...] = tuple(product(ORDERS, ORDERS))


class Prices(Protocol):
    """What things take."""

    def layer(self, layer: Layer, tokens: int, residual: bool, orders: Orders) -> Choice | None:
        """The best way for a layer that makes so many tokens, in these orders; None if there is none."""

    def without_tiles(self, layer: WithWeights, tokens: int, residual: bool) -> Choice:
        """The best way that has no tiles, in PyTorch's own order."""

    def turning(self, features: int, tokens: int) -> float:
        """The seconds that it takes to write an activation in the other order."""


@dataclass(frozen=True)
class Site:
    """A layer in its place, and what it can do there: how it would run best, by orders."""

    node: fx.Node
    layer: Layer
    choices: Mapping[Orders, Choice]


@dataclass(frozen=True)
class Decision:
    """How a layer runs. ``faster_alone``: the way that was, in the same orders, where the network was to be dense."""

    reads: str
    writes: str
    choice: Choice
    faster_alone: Choice | None = None


def decide(graph: fx.Graph, prices: Prices) -> dict[fx.Node, Decision]:
    """A decision for the node of every layer."""
    sites = {node: _site(node, prices) for node in graph.nodes if layer_of(node) is not None}
    problem = Problem(sites, graph, prices)
    starts: list[dict[fx.Node, Orders]] = [
        {node: min(site.choices, key=lambda pair: (sum(order != wanted for order in pair), site.choices[pair].seconds))
         for node, site in sites.items()} for wanted in ORDERS]
    starts.append({node: min(site.choices, key=lambda pair: site.choices[pair].seconds) for node, site in sites.items()})
    best = min((problem.descend(start) for start in starts), key=problem.cost)
    return {node: Decision(*pair, sites[node].choices[pair]) for node, pair in best.items()}


def in_tokens(graph: fx.Graph, prices: Prices) -> dict[fx.Node, Decision]:
    """Every layer by its best way in PyTorch's own order."""
    sites = [_site(node, prices) for node in graph.nodes if layer_of(node) is not None]
    return {site.node: Decision(TOKENS, TOKENS, site.choices[TOKENS, TOKENS]) for site in sites}


def dense_in_tokens(graph: fx.Graph, prices: Prices) -> dict[fx.Node, Decision]:
    """The same without tiles."""
    found = in_tokens(graph, prices)
    for node, one in found.items():
        layer = layer_of(node)
        if isinstance(layer, WithWeights):
            dense = prices.without_tiles(layer, math.prod(lead_of(node)), len(node.args) > 1)
            if dense.way != one.choice.way:
                found[node] = replace(one, choice=dense, faster_alone=one.choice)
    return found


def _site(node: fx.Node, prices: Prices) -> Site:
    layer = layer_of(node)
    assert layer is not None
    found = {pair: prices.layer(layer, math.prod(lead_of(node)), len(node.args) > 1, pair) for pair in PAIRS}
    able = {pair: choice for pair, choice in found.items() if choice is not None}
    failed = tuple(dict.fromkeys(line for choice in able.values() for line in choice.failed))  # in orders that lost for it too
    return Site(node, layer, {pair: replace(choice, failed=failed) for pair, choice in able.items()})


class Problem:
    """The sum, and how much of it one layer's orders decide."""

    def __init__(self, sites: Mapping[fx.Node, Site], graph: fx.Graph, prices: Prices) -> None:
        self.sites = sites
        turned = (value for node, site in sites.items() if site.choices.keys() != {(TOKENS, TOKENS)}
                  for value in (node, *node.all_input_nodes))
        self.turns = {value: prices.turning(shape_of(value)[-1], tokens_of(value)) for value in dict.fromkeys(turned)}

    def cost(self, orders: Mapping[fx.Node, Orders]) -> float:
        return sum(self.sites[node].choices[pair].seconds for node, pair in orders.items()) + sum(
            self.turned(value, orders) for value in self.turns)

    def turned(self, value: fx.Node, orders: Mapping[fx.Node, Orders]) -> float:
        """What turning one value costs, if any of its readers wants it so."""
        own = orders[value][1] if value in orders else TOKENS
        wanted = {order for user in value.users for order in wishes(user, value, orders)}
        return self.turns[value] if wanted - {own} else 0.0

    def descend(self, orders: dict[fx.Node, Orders]) -> dict[fx.Node, Orders]:
        orders = dict(orders)
        for _ in range(MOST_SWEEPS):
            before = dict(orders)
            for node, site in self.sites.items():
                around = (node, *node.all_input_nodes)

                def local(pair: Orders, node: fx.Node = node, site: Site = site, around: Sequence[fx.Node] = around) -> float:
                    trial = orders | {node: pair}
                    return site.choices[pair].seconds + sum(self.turned(value, trial) for value in around)

                best = min(site.choices, key=local)
                if local(best) < local(orders[node]):
                    orders[node] = best
            if orders == before:
                break
        return orders


def wishes(user: fx.Node, value: fx.Node, orders: Mapping[fx.Node, Orders]) -> list[str]:
    """The orders in which a node reads a value: a layer its operand and its residual, which lies as what it writes does."""
    if user not in orders:
        return [TOKENS]
    return [order for order, operand in zip(orders[user], user.args, strict=False) if operand is value]
