"""Inputs of few channels, as images have: columns that a stride keeps apart come side by side in the eight lanes of a group.

A convolution of stride 2 over 3 channels becomes one over 6, whose window and steps are half as wide: the same sums, from about
half as many products. How the input's columns lie in host memory is all that changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from zellige.aie2.packet import GROUP
from zellige.graph.quantized import QuantizedGraph, QuantizedNode


def fold_stems(graph: QuantizedGraph) -> tuple[QuantizedGraph, dict[str, int]]:
    """The graph with such inputs folded, and how many columns of each lie side by side."""
    folds = {node.inputs[0]: node for node in graph if _may_fold(node, graph)}
    nodes, inputs = dict(graph.nodes), dict(graph.inputs)
    for name, node in folds.items():
        fold = _steps(node)[1]
        batch, channels, height, width = graph.inputs[name]
        inputs[name] = (batch, fold * channels, height, -(-width // fold))
        nodes[node.name] = _folded(node, fold, inputs[name][3])
    return replace(graph, nodes=nodes, inputs=inputs), {name: _steps(node)[1] for name, node in folds.items()}


def _steps(node: QuantizedNode) -> tuple[int, int]:
    a: Mapping[str, Any] = node.attributes
    return a.get("stride", (1, 1))


def _may_fold(node: QuantizedNode, graph: QuantizedGraph) -> bool:
    """Whether a convolution is alone in reading an input whose columns have room beside one another."""
    a: Mapping[str, Any] = node.attributes
    if node.op != "conv2d" or node.weight is None or node.inputs[0] not in graph.inputs:
        return False
    name, fold = node.inputs[0], _steps(node)[1]
    read = [one.name for one in graph for value in one.inputs if value == name]
    plain = (a.get("groups", 1), a.get("dilation", (1, 1))[1], a.get("padding_mode", "zeros")) == (1, 1, "zeros")
    room = fold > 1 and len(graph.inputs[name]) == 4 and fold * graph.inputs[name][1] <= GROUP
    return plain and room and read == [node.name] and name not in graph.outputs


def _folded(node: QuantizedNode, fold: int, width: int) -> QuantizedNode:
    """The convolution over an input of ``width``, where columns lie ``fold`` together: column ``x`` is in column ``x // fold``."""
    a: Mapping[str, Any] = node.attributes
    weight = node.weight
    assert weight is not None
    outputs, channels, rows, columns = weight.shape
    top, bottom, left, _ = a.get("padding", (0, 0, 0, 0))
    before = -(-left // fold)
    place = np.arange(columns) - left + before * fold  # from the first column of the first that the window sees
    wide = np.zeros((outputs, fold, channels, rows, int(place.max()) // fold + 1), np.int8)
    for column, at in enumerate(place):
        wide[:, at % fold, :, :, at // fold] = weight[..., column]
    behind = max(node.shape[3] + wide.shape[4] - 1 - before - width, 0)
    changed = {"stride": (_steps(node)[0], 1), "padding": (top, bottom, before, behind)}
    return replace(node, weight=wide.reshape(outputs, fold * channels, rows, -1), attributes={**a, **changed})
