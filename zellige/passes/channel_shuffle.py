"""Channel shuffles under their own name (Zhang et al., ShuffleNet, 2018).

Models spell it as three shape changes: N × gc → N × g × c, exchange the two, back to one. As one operation it moves
whole planes, and the two intermediate tensors of five dimensions, which no kernel wants, are gone.
"""

from __future__ import annotations

from zellige.graph.ir import Graph, Node
from zellige.passes.rewrite import Rewriting, Rules, rewrite


def name_channel_shuffles(graph: Graph) -> Graph:
    """reshape → transpose → reshape that exchanges two parts of the channel dimension becomes ``channel_shuffle``."""
    return rewrite(graph, RULES)


def _shuffle(state: Rewriting, node: Node) -> Node | None:
    turned = state.producer(node.inputs[0], "transpose")
    split = state.producer(turned.inputs[0], "reshape") if turned else None
    if turned is None or split is None or node.type != state.done.type_of(split.inputs[0]):
        return None
    shape, parts = node.type.shape, split.type.shape
    exchanged = (0, 2, 1, *range(3, len(parts)))
    if len(shape) < 2 or parts != (shape[0], *parts[1:3], *shape[2:]) or turned.attributes["order"] != exchanged:
        return None
    return state.make(node, "channel_shuffle", split.inputs, {"groups": parts[1]})


RULES: Rules = {"reshape": (_shuffle,)}
