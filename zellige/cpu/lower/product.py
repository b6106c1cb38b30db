"""Linear layers, and convolutions that make a single pixel: a sparse matrix times the vectors of a batch."""

from __future__ import annotations

import numpy as np

from zellige.cpu.calls import Slot
from zellige.cpu.kernels.matrix_vector import ROWS, MatrixVectorKernel
from zellige.cpu.layout import Dense
from zellige.cpu.lower.lowering import Lowering
from zellige.cpu.lower.moves import append_copy, to_dense
from zellige.cpu.tables.matrix_vector import matrix_vector_work
from zellige.cpu.tables.relayout import copy_work
from zellige.graph.ir import Node
from zellige.passes.sparsity import band_columns, layer_sparsity


def lower_linear(lowering: Lowering, node: Node) -> None:
    weight = lowering.constant(node.inputs[1])
    bias = lowering.constant(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(len(weight), np.float32)
    lower_product(lowering, node, weight, 1, bias)


def lower_product(lowering: Lowering, node: Node, matrix: np.ndarray, groups: int, bias: np.ndarray) -> None:
    """Append the product of a (rows × columns / groups) matrix with the node's first input, taken as tokens × columns."""
    first = len(lowering.plan.calls)
    features = matrix.shape[1] * groups
    source = to_dense(lowering, node, node.inputs[0])
    tokens = lowering.graph.type_of(node.inputs[0]).elements // features
    target = lowering.storage[node.name]
    dense = target
    if not isinstance(target.layout, Dense):
        dense = lowering.storage.reserve(f"{node.name} product", Dense(target.layout.shape))
    bands = band_columns(matrix, groups, ROWS)
    entry, counts, work = matrix_vector_work(bands, bias, features, tokens)
    names = [step.operand for step in node.epilogue if step.operand is not None]
    additions = [stored if isinstance(stored.layout, Dense) else to_dense(lowering, node, name, stored)
                 for name, stored in zip(names, lowering.operands(node), strict=True)]
    operands: dict[str, Slot] = {f"operand{number}": stored.place for number, stored in enumerate(additions)}
    lowering.call(node, MatrixVectorKernel(entry, counts, lowering.epilogue(node)), {
        "source": source.place, "target": dense.place, **work.tables, **operands}, work.costs)
    if dense is not target:
        append_copy(lowering, node, dense, target, copy_work(dense.layout, target.layout, lowering.isa.lanes))
    density = bands.kept / matrix.size
    reason = (f"{tokens} vector{'s' * (tokens > 1)} of inputs: lanes run over rows, {4 * bands.kept / 1e6:.2f} MB of weights "
              f"({density:.0%} of columns) stream once, "
              f"{entry.columns} {'single columns' if entry.named else 'neighbours'} to an entry")
    sparsity = layer_sparsity(matrix, groups)
    lowering.layer(node, "matrix-vector", reason + sparsity.unused_zeros(density), pattern=sparsity.pattern, density=density,
                   macs=tokens * matrix.size, first_call=first)
