"""Convolutions: from staged or direct planes through the band kernel, or as a matrix times a vector.

A convolution with a stride or with another padding than zeros can't read its source as it lies. It makes planes of its own, with
the padding written out and, for a stride, one plane for each phase (pixels y ≡ py, x ≡ px modulo the stride): there every tap
is an offset again. Each thread makes those that it reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from zellige.cpu.calls import Scratch, Slot
from zellige.cpu.costs import Demand
from zellige.cpu.kernels.band import BandKernel
from zellige.cpu.kernels.winograd_points import LARGE, SMALL
from zellige.cpu.layout import Margins, Planes
from zellige.cpu.lower.choice import choose
from zellige.cpu.lower.depthwise import depthwise_paths
from zellige.cpu.lower.lowering import Lowering
from zellige.cpu.lower.paths import Path
from zellige.cpu.lower.pooling import pool_of
from zellige.cpu.lower.product import lower_product
from zellige.cpu.lower.row_winograd import row_winograd_paths
from zellige.cpu.lower.winograd import WinogradPlan
from zellige.cpu.storage import is_direct, is_map
from zellige.cpu.tables.band import Taps, band_costs, band_rows, band_work
from zellige.cpu.tables.staged_band import staged_band_work
from zellige.cpu.tables.windows import Stage, positions
from zellige.cpu.tables.work import Work
from zellige.graph.ir import Node
from zellige.passes.sparsity import band_columns, layer_sparsity

DENSE = 0.999


@dataclass(frozen=True, eq=False)
class Convolution:
    """A convolution's sizes and weights, read once from its node."""

    node: Node
    weight: np.ndarray
    bias: np.ndarray
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int, int, int]
    groups: int

    @property
    def outputs(self) -> int:
        return self.weight.shape[0]

    @property
    def kernel(self) -> tuple[int, int]:
        return self.weight.shape[2], self.weight.shape[3]

    @property
    def macs(self) -> int:
        images, _, height, width = self.node.type.shape
        return images * height * width * int(np.prod(self.weight.shape))


def read_convolution(lowering: Lowering, node: Node) -> Convolution:
    weight = lowering.constant(node.inputs[1])
    bias = lowering.constant(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(len(weight), np.float32)
    attributes = node.attributes
    return Convolution(node, weight, bias, attributes["stride"], attributes["dilation"],  # type: ignore[arg-type]
                       attributes["padding"], attributes["groups"])  # type: ignore[arg-type]


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


# The direct path


def direct_paths(lowering: Lowering, convolution: Convolution) -> list[Path]:
    """The band kernel on kept columns; where none can be left out that is the dense kernel."""
    node, isa = convolution.node, lowering.isa
    rows = band_rows(convolution.outputs, convolution.groups, isa)
    bands = band_columns(convolution.weight, convolution.groups, rows)
    density = bands.kept / convolution.weight.size
    source, target = lowering.storage[node.inputs[0]], lowering.planes(node.name)
    assert isinstance(target.layout, Planes)
    taps = taps_of(lowering, convolution)
    scratch: dict[str, Slot] = {}
    if taps.stage:
        tiles, elements, work = staged_band_work(bands, convolution.bias, taps, source.layout, target.layout, convolution.padding,
                                                 str(node.attributes["padding_mode"]), rows, isa)
        scratch = {"scratch": Scratch(elements), "scratch_bytes": 4 * elements}
    else:
        assert isinstance(source.layout, Planes)
        tiles, work = band_work(bands, convolution.bias, taps, source.layout, target.layout, rows, isa)
    if density > DENSE:
        name, reason = "dense", "no column of a band is zero"
    else:
        of_dense = work.costs.sum() / dense_cycles(convolution.weight, work, rows)
        name, reason = "sparse", f"bands of {rows} rows keep {density:.0%} of their columns: {of_dense:.2f} of the dense cycles"

    def append() -> None:
        kernel = BandKernel(rows, tiles, lowering.epilogue(node), taps.masked, staged=taps.stage is not None)
        lowering.call(node, kernel, {"source": source.place, "target": target.place, **work.tables, **scratch,
                                     **lowering.operand_slots(node)}, work.costs)

    demand = Demand("band", float(work.costs.sum()), work.nbytes, lowering.map_bytes(node))
    return [Path(name, reason, density, (demand,), append)]


def dense_cycles(weight: np.ndarray, work: Work, rows: int) -> float:
    """What the same items would take with every column."""
    items = work.tables["items"]
    assert isinstance(items, np.ndarray)
    columns = np.full(len(items), weight[0].size)
    return float(band_costs(columns, items[:, 1], items[:, 2], rows).sum())


def stage_of(lowering: Lowering, convolution: Convolution) -> Stage:
    """The planes of a convolution with a stride: where rows may not be longer than its output's, each tap has its own columns."""
    return Stage.of(convolution.kernel, convolution.dilation, convolution.stride, lowering.storage.is_flat(convolution.node.name))


def taps_of(lowering: Lowering, convolution: Convolution) -> Taps:
    """Taps of the source's own planes begin in its margins, or are masked; staged planes begin with the padding."""
    if not is_direct(lowering.graph, convolution.node):
        return Taps(convolution.kernel, convolution.dilation, stage=stage_of(lowering, convolution))
    source = lowering.planes(convolution.node.inputs[0]).layout
    assert isinstance(source, Planes)
    top, bottom, left, right = convolution.padding
    within = source.margins.union(Margins(top, bottom, left, right)) == source.margins
    return Taps(convolution.kernel, convolution.dilation, (top, left), masked=not within)


# Winograd's paths


def winograd_paths(lowering: Lowering, convolution: Convolution) -> list[Path]:
    """3 × 3 filters at stride 1 with large tiles and, where those are few, with small ones; a column goes if all of its nine taps
    are zero."""
    node = convolution.node
    if not (lowering.options.winograd and is_direct(lowering.graph, node) and convolution.weight.shape[2:] == (3, 3)
            and convolution.dilation == (1, 1) and convolution.groups == 1):
        return []
    pool = pool_of(lowering, node)
    source, target = lowering.planes(node.inputs[0]), lowering.planes(pool or node.name)
    assert isinstance(source.layout, Planes) and isinstance(target.layout, Planes)
    layer = (lowering.isa, convolution.weight, convolution.bias, source.layout, target.layout, convolution.padding,
             lowering.epilogue(node), pool is not None)
    plans = {"winograd": WinogradPlan(*layer, LARGE)}
    if not plans["winograd"].by_strips:
        plans["small winograd"] = WinogradPlan(*layer, SMALL)
    places: dict[str, Slot] = {"source": source.place, "target": target.place, **lowering.operand_slots(node)}
    map_bytes = lowering.map_bytes(node) + 4 * (target.layout.elements - lowering.planes(node.name).layout.elements)
    return [Path(name, f"{plan.transform}, {plan.description}", plan.density, (plan.demand(map_bytes),),
                 partial(append_winograd, lowering, node, plan, places), (pool,) if pool else ())
            for name, plan in plans.items()]


def append_winograd(lowering: Lowering, node: Node, plan: WinogradPlan, places: dict[str, Slot]) -> None:
    call = plan.call
    lowering.call(node, call.kernel, {**call.slots, **places}, call.costs)


# Maps of one output pixel


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
