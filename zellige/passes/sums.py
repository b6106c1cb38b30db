"""Sums of two convolutions: one convolution of both sources.

Where a residual network changes its width, a 1 × 1 convolution stands in the shortcut, and the block ends in
conv(h) + shortcut(x). That is one product, [W | V] · [h; x]: the sum is made in registers, and the map between, the largest
of the block, is neither written nor read. The sources become parts of one value, which costs nothing where what makes them
writes into it.
"""

from __future__ import annotations

import numpy as np

from zellige.graph.ir import Graph, Node
from zellige.passes.rewrite import Rewriting, rewrite

MOVES = frozenset({"slice", "reshape", "transpose", "concat", "channel_shuffle"})
"""What makes such a source may have a place for it already, inside of another value: to join it would be a copy."""


def merge_sums(graph: Graph) -> Graph:
    """Additions of two 1 × 1 convolutions become one convolution, named after both (``block.conv3+shortcut``)."""
    parts = {name for node in graph if node.op == "concat" for name in node.inputs}
    picked: set[str] = set()

    def merge(state: Rewriting, node: Node) -> str | None:
        terms = [term for name in node.inputs if (term := _term(state, name, node, parts)) is not None]
        if len(terms) < 2 or terms[0].inputs[0] == terms[1].inputs[0]:
            return None
        sources = [_source(state, term) for term in terms]
        parts.update(sources)
        picked.update(source for term, source in zip(terms, sources, strict=True) if _is_strided(term))
        return _convolution(state, terms, sources)

    return _early(rewrite(graph, {"add": (merge,)}), picked)


def _early(graph: Graph, picked: set[str]) -> Graph:
    """Nodes that pick pixels stand behind what makes these, whose memory is then free the sooner."""
    place = {name: position for position, name in enumerate(graph.nodes)}
    return graph.with_nodes(sorted(graph, key=lambda node: place[node.inputs[0] if node.name in picked else node.name]))


def _term(state: Rewriting, name: str, node: Node, parts: set[str]) -> Node | None:
    """The 1 × 1 convolution of a map that makes one operand of an addition, if nothing else reads it, and if its source can
    become a part of another value: it has a node that makes it, and is none of the ``parts`` of others.
    """
    term = state.producer(name, "conv2d")
    if term is None or not state.only_reader(name) or term.type != node.type or np.prod(term.type.shape[2:]) == 1:
        return None
    if any(parameter not in state.done.constants for parameter in term.inputs[1:]) or term.attributes["groups"] != 1:
        return None
    if state.shape(term.inputs[1])[2:] != (1, 1) or term.attributes["padding"] != (0, 0, 0, 0):
        return None
    maker = state.done.nodes.get(term.inputs[0])
    if maker is None or (not _is_strided(term) and (maker.op in MOVES or maker.name in parts)):
        return None
    return term


def _is_strided(term: Node) -> bool:
    return term.attributes["stride"] != (1, 1)


def _source(state: Rewriting, term: Node) -> str:
    """What a convolution reads: of its source, at a stride, the pixels that count, as a pool of one tap gives them."""
    if not _is_strided(term):
        return term.inputs[0]
    window = {"kernel": (1, 1), "stride": term.attributes["stride"]}
    return state.insert(f"{term.name}.source", term, "max_pool2d", term.inputs[:1], window)


def _convolution(state: Rewriting, terms: list[Node], sources: list[str]) -> str:
    """One convolution that is the sum of the terms."""
    name = _joined_name(*(term.name for term in terms))
    whole = state.insert(f"{name}.source", terms[0], "concat", sources, {"dimension": 1})
    weights = [state.done.constants[term.inputs[1]] for term in terms]
    biases = [state.done.constants[term.inputs[2]] for term in terms if len(term.inputs) > 2]
    parameters = [state.add_constant(f"{name}.weight", np.concatenate(weights, axis=1))]
    if biases:
        parameters.append(state.add_constant(f"{name}.bias", np.sum(biases, axis=0)))
    return state.insert(name, terms[0], "conv2d", (whole, *parameters))


def _joined_name(first: str, second: str) -> str:
    """Both names of layers, without repeating the modules that hold both.

    >>> _joined_name("layer1.0.conv3", "layer1.0.downsample.0")
    'layer1.0.conv3+downsample.0'
    """
    modules, others = first.split("."), second.split(".")
    shared = 0
    while modules[shared] == others[shared] and shared < min(len(modules), len(others)) - 1:
        shared += 1
    return f"{first}+{'.'.join(others[shared:])}"
