"""The paths that a convolution may take, of which the fastest is chosen; where it makes a single pixel, a matrix times a vector."""

from __future__ import annotations

import numpy as np

from zellige.cpu.lower.choice import choose
from zellige.cpu.lower.convolution import Convolution, read_convolution
from zellige.cpu.lower.depthwise import depthwise_paths
from zellige.cpu.lower.direct import direct_paths
from zellige.cpu.lower.lowering import Lowering
from zellige.cpu.lower.product import lower_product
from zellige.cpu.lower.row_winograd import row_winograd_paths
from zellige.cpu.lower.winograd_paths import winograd_paths
from zellige.cpu.storage import is_map
from zellige.cpu.tables.windows import positions
from zellige.graph.ir import Node
from zellige.passes.sparsity import layer_sparsity


def lower_convolution(lowering: Lowering, node: Node) -> None:
    """Choose a path for one convolution and append its calls."""
    convolution = read_convolution(lowering, node)
    if not is_map(node.type):
        lower_product(lowering, node, *single_window(lowering, convolution), convolution.bias)
        return
    first = len(lowering.plan.calls)
    sparsity = layer_sparsity(convolution.weight, convolution.groups)
    path = choose(lowering, depthwise_paths(lowering, convolution)
                  or direct_paths(lowering, convolution) + winograd_paths(lowering, convolution)
                  + row_winograd_paths(lowering, convolution))
    path.append()
    lowering.included.update(path.included)
    lowering.layer(node, path.name, path.reason + sparsity.unused_zeros(path.density), pattern=sparsity.pattern,
                   density=path.density, macs=convolution.macs, first_call=first)


def single_window(lowering: Lowering, convolution: Convolution) -> tuple[np.ndarray, int]:
    """The weight as a matrix over all pixels of the source (features are channel, row, column), and its groups.

    Taps in a padding of zeros fall away.
    """
    node = convolution.node
    _, _, height, width = lowering.graph.type_of(node.inputs[0]).shape
    outputs, inputs, kernel_height, kernel_width = convolution.weight.shape
    top, bottom, left, right = convolution.padding
    mode = str(node.attributes["padding_mode"])
    rows, columns = positions(height, top, bottom, mode), positions(width, left, right, mode)
    matrix = np.zeros((outputs, inputs, height, width), np.float32)
    for ky in range(kernel_height):
        for kx in range(kernel_width):
            y, x = rows[ky * convolution.dilation[0]], columns[kx * convolution.dilation[1]]
            if y >= 0 and x >= 0:
                matrix[:, :, y, x] += convolution.weight[:, :, ky, kx]
    return matrix.reshape(outputs, inputs * height * width), convolution.groups
