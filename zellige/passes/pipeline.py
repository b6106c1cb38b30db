"""The order of the passes: what `optimize` does to a graph before a backend plans it."""

from __future__ import annotations

from collections.abc import Callable

from zellige.errors import GraphError
from zellige.graph.ir import Graph
from zellige.graph.verify import verify_graph
from zellige.passes.activations import name_activations
from zellige.passes.affine import merge_affine
from zellige.passes.channel_order import order_channels
from zellige.passes.channel_shuffle import name_channel_shuffles
from zellige.passes.constants import fold_constants
from zellige.passes.eliminate import eliminate_dead, eliminate_duplicates
from zellige.passes.fold import fold_affine
from zellige.passes.fuse import fuse_epilogues
from zellige.passes.identities import remove_identities
from zellige.passes.padding import fold_padding
from zellige.passes.pooling import simplify_pooling
from zellige.passes.sums import merge_sums
from zellige.passes.transposes import sink_transposes

Pass = Callable[[Graph], Graph]
Observer = Callable[[str, Graph], None]

# These open the way for one another, so they run in turn until none changes anything. Names come before arithmetic:
# a hard swish is recognised by the constants that `affine` would rearrange.
SIMPLIFY: tuple[tuple[str, Pass], ...] = (
    ("dead", eliminate_dead),
    ("constants", fold_constants),
    ("transposes", sink_transposes),
    ("identities", remove_identities),
    ("channel_shuffle", name_channel_shuffles),
    ("duplicates", eliminate_duplicates),
    ("activations", name_activations),
    ("pooling", simplify_pooling),
    ("padding", fold_padding),
    ("affine", merge_affine),
    ("fold", fold_affine),
)

# Fused nodes are finished, so these run once, at the end.
FINISH: tuple[tuple[str, Pass], ...] = (
    ("sums", merge_sums),
    ("fuse", fuse_epilogues),
    ("dead", eliminate_dead),
    ("channel_order", order_channels),
)

MOST_ROUNDS = 32


def optimize(graph: Graph, *, observe: Observer | None = None) -> Graph:
    """The graph simplified, folded and fused. Its inputs, and what it computes from them, stay the same.

    Every pass's result is verified; ``observe(name, graph)`` is called with it. Raises ``GraphError`` if a graph breaks
    its rules, or if folding gives parameters that are not finite.
    """
    verify_graph(graph)
    for _ in range(MOST_ROUNDS):
        before = graph
        graph = _run(SIMPLIFY, graph, observe)
        if graph.nodes == before.nodes and graph.outputs == before.outputs:
            return _run(FINISH, graph, observe)
    raise GraphError(f"graph {graph.name}: the simplifying passes still change it after {MOST_ROUNDS} rounds")


def _run(passes: tuple[tuple[str, Pass], ...], graph: Graph, observe: Observer | None) -> Graph:
    for name, change in passes:
        graph = change(graph)
        verify_graph(graph)
        if observe is not None:
            observe(name, graph)
    return graph
