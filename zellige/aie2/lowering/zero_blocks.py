"""Which blocks of weights products leave out: whether a network is dense."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from zellige.aie2.lowering.place import place
from zellige.aie2.lowering.stems import fold_stems
from zellige.graph.quantized import QuantizedGraph, QuantizedNode


def zero_blocks(graph: QuantizedGraph) -> dict[str, int]:
    """By nodes that have any: how many blocks of 8 × 8 have no tap, as all their weights are zero. Those between the groups of a
    grouped convolution aren't counted.

    Raises ``CompileError`` naming the first node that can't be placed.
    """
    whole = replace(graph, nodes={name: _without_zeros(node) for name, node in graph.nodes.items()})
    given, full = (place(fold_stems(one)[0]).phases for one in (graph, whole))
    return {one.node: len(other.taps.rows) - len(one.taps.rows) for one, other in zip(given, full, strict=True)
            if len(one.taps.rows) < len(other.taps.rows)}  # fmt: skip


def _without_zeros(node: QuantizedNode) -> QuantizedNode:
    return node if node.weight is None else replace(node, weight=np.ones_like(node.weight))
