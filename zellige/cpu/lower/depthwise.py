"""Depthwise convolutions: the filter of each channel over the source's own planes, at any of the kernel's strides."""

from __future__ import annotations

from zellige.cpu.costs import Demand
from zellige.cpu.kernels.activation import STRAIGHT
from zellige.cpu.kernels.depthwise import DepthwiseKernel
from zellige.cpu.layout import Planes
from zellige.cpu.lower.convolution import Convolution
from zellige.cpu.lower.lowering import Lowering
from zellige.cpu.lower.paths import Path
from zellige.cpu.storage import is_depthwise
from zellige.cpu.tables.depthwise import depthwise_work


def depthwise_paths(lowering: Lowering, convolution: Convolution) -> list[Path]:
    """The depthwise kernel, where a convolution is one for it."""
    node = convolution.node
    if not is_depthwise(lowering.graph, node):
        return []
    source, target = lowering.planes(node.inputs[0]), lowering.planes(node.name)
    assert isinstance(source.layout, Planes) and isinstance(target.layout, Planes)
    top, _, left, _ = convolution.padding
    epilogue = lowering.epilogue(node)
    curved = any(len(step) == 3 and step[1] not in STRAIGHT for step in epilogue)
    tiles, work = depthwise_work(convolution.weight[:, 0], convolution.bias, source.layout, target.layout, convolution.stride,
                                 (top, left), convolution.dilation, lowering.isa, curved)
    kernel = DepthwiseKernel(convolution.kernel, convolution.dilation, convolution.stride, tiles, epilogue)

    def append() -> None:
        lowering.call(node, kernel, {"source": source.place, "target": target.place, **work.tables, **lowering.operand_slots(node)},
                      work.costs)

    demand = Demand("depthwise", float(work.costs.sum()), work.nbytes, lowering.map_bytes(node))
    reason = "each filter stays in registers, a vector serves all rows of a tile: " + " or ".join(map(str, tiles))
    return [Path("depthwise", reason, 1.0, (demand,), append)]
