"""Convolutions: from staged or direct planes through the band kernel, or as a matrix times a vector.

A convolution with a stride or with another padding than zeros can't read its source as it lies. It gets planes of its own,
with the padding written out and, for a stride, one plane for each phase (pixels y ≡ py, x ≡ px modulo the stride): there every
tap is an offset again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zellige.cpu.calls import Stored
from zellige.cpu.kernels.band import BandKernel
from zellige.cpu.layout import Planes
from zellige.cpu.lower.lowering import Lowering
from zellige.cpu.lower.paths import Path, choose
from zellige.cpu.lower.product import lower_product
from zellige.cpu.lower.staging import Window, stage
from zellige.cpu.storage import is_direct, is_map
from zellige.cpu.tiles import tile_items, tile_widths
from zellige.cpu.vectors import flat_vectors, row_vectors
from zellige.graph.ir import Node
from zellige.passes.sparsity import Bands, band_columns, layer_sparsity

ITEM_CYCLES = 40       # begin and end of one tile and band: bias, call, masks
STORE_CYCLES = 2       # one vector through a plain epilogue
MAXIMUM_VECTORS = 8    # of a tile; more would only help kernels of one row


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
    path = choose(lowering, direct_paths(lowering, convolution))
    path.append()
    lowering.layer(node, path.name, path.reason, pattern=sparsity.pattern, density=path.density, macs=convolution.macs, first_call=first)


# The direct path


def direct_paths(lowering: Lowering, convolution: Convolution) -> list[Path]:
    """The band kernel on kept columns; where none can be left out that is the dense kernel."""
    rows = band_rows(convolution, lowering.isa.band[0])
    bands = band_columns(convolution.weight, convolution.groups, rows)
    density = bands.kept / convolution.weight.size
    name, reason = ("direct", "no column of a band is zero: dense") if density > 0.999 else (
        "sparse", f"bands of {rows} rows keep {density:.0%} of their columns")
    source = source_planes(lowering, convolution)
    target = lowering.planes(convolution.node.name)
    items, table = direct_items(lowering, bands, source.layout, target.layout, rows)  # type: ignore[arg-type]
    costs = direct_costs(bands, items, rows)

    def append() -> None:
        source = source_planes(lowering, convolution, commit=True)
        append_direct(lowering, convolution, bands, source, target, rows, items, table, costs)

    return [Path(name, reason, density, float(costs.sum()), append)]


def band_rows(convolution: Convolution, widest: int) -> int:
    """Rows of a band: the registers' worth, or what a group has."""
    each = convolution.outputs // convolution.groups
    return max(rows for rows in (1, 2, 4, widest) if rows <= max(1, each) and rows <= widest)


def source_planes(lowering: Lowering, convolution: Convolution, commit: bool = False) -> Stored:
    """The planes that the kernel reads: the source's own, or staged ones (made when ``commit`` is set)."""
    node = convolution.node
    if is_direct(lowering.graph, node):
        return lowering.planes(node.inputs[0])
    target = lowering.planes(node.name).layout
    assert isinstance(target, Planes)
    window = Window(convolution.stride, convolution.padding, str(node.attributes["padding_mode"]),
                    kernel=((convolution.weight.shape[2] - 1) * convolution.dilation[0] + 1,
                            (convolution.weight.shape[3] - 1) * convolution.dilation[1] + 1))
    return stage(lowering, node, node.inputs[0], window, target, commit)


def column_offsets(lowering: Lowering, convolution: Convolution, bands: Bands, source: Planes) -> np.ndarray:
    """Where each column's pixels lie, relative to the output pixel's own place in the source."""
    _, _, _, width = convolution.weight.shape
    ky, kx = bands.tap // width * convolution.dilation[0], bands.tap % width * convolution.dilation[1]
    channel = bands.channel.astype(np.int64)
    if is_direct(lowering.graph, convolution.node):
        top, _, left, _ = convolution.padding
        return (channel * source.plane + (ky - top) * source.row + kx - left).astype(np.int32)
    (sy, sx), phases = convolution.stride, source.channels // lowering.graph.type_of(convolution.node.inputs[0]).shape[1]
    phase = ky % sy * sx + kx % sx
    return ((channel * phases + phase) * source.plane + ky // sy * source.row + kx // sx).astype(np.int32)


def direct_items(lowering: Lowering, bands: Bands, source: Planes, target: Planes, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Work items and vectors: flat over the planes, or row by row where that takes fewer vectors."""
    lanes = lowering.isa.lanes
    by_row = row_vectors(source, target, lanes)
    flat = flat_vectors(source, target, lanes) if source.row == target.row else by_row
    table = flat if len(flat) <= len(by_row) else by_row
    widest = min(MAXIMUM_VECTORS, lowering.isa.band[0] * lowering.isa.band[1] // rows)
    if rows == lowering.isa.band[0]:
        widest = lowering.isa.band[1]
    return tile_items(tile_widths(len(table), widest), len(bands), source.channels, lanes), table


def direct_costs(bands: Bands, items: np.ndarray, rows: int) -> np.ndarray:
    """Cycles of each item: two FMAs a cycle, or two loads."""
    columns = np.diff(bands.start)[items[:, 2]]
    vectors = items[:, 1]
    step = np.maximum(rows * vectors, rows + vectors + 1) / 2
    return (columns * step + ITEM_CYCLES + STORE_CYCLES * rows * vectors).astype(np.int64)


def append_direct(lowering: Lowering, convolution: Convolution, bands: Bands, source: Stored, target: Stored, rows: int,
                  items: np.ndarray, table: np.ndarray, costs: np.ndarray) -> None:
    """The band kernel's call."""
    assert isinstance(source.layout, Planes) and isinstance(target.layout, Planes)
    records = np.stack([bands.start[:-1], bands.start[1:], bands.first_row, bands.rows], 1).astype(np.int32)
    kernel = BandKernel(rows, tuple(sorted({int(width) for width in items[:, 1]}, reverse=True)), lowering.epilogue(convolution.node))
    lowering.call(convolution.node, kernel, {
        "source": source.place, "target": target.place, "vectors": table, "items": items, "bands": records,
        "columns": column_offsets(lowering, convolution, bands, source.layout), "weights": padded_values(bands, rows),
        "bias": np.concatenate([convolution.bias, np.zeros(rows, np.float32)]), "target_plane": target.layout.plane,
        **lowering.operand_slots(convolution.node)}, costs)


def padded_values(bands: Bands, rows: int) -> np.ndarray:
    """The weights as [column][rows], short bands filled up with rows of zeros."""
    if (bands.rows == rows).all():
        return bands.values
    result = np.zeros((int(bands.start[-1]), rows), np.float32)
    for band in range(len(bands)):
        result[bands.start[band]:bands.start[band + 1], :bands.rows[band]] = bands.weights(band)
    return result


# Maps of one output pixel


def single_window(lowering: Lowering, convolution: Convolution) -> tuple[np.ndarray, int]:
    """The weight as a matrix over all pixels of the source (features are channel, row, column) and its groups: taps in the padding fall away."""
    node = convolution.node
    _, _, height, width = lowering.graph.type_of(node.inputs[0]).shape
    outputs, inputs, kernel_height, kernel_width = convolution.weight.shape
    top, bottom, left, right = convolution.padding
    mode = str(node.attributes["padding_mode"])
    rows, columns = padded_positions(height, top, bottom, mode), padded_positions(width, left, right, mode)
    matrix = np.zeros((outputs, inputs, height, width), np.float32)
    for ky in range(kernel_height):
        for kx in range(kernel_width):
            y, x = rows[ky * convolution.dilation[0]], columns[kx * convolution.dilation[1]]
            if y >= 0 and x >= 0:
                matrix[:, :, y, x] += convolution.weight[:, :, ky, kx]
    return matrix.reshape(outputs, inputs * height * width), convolution.groups


PAD_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def padded_positions(size: int, before: int, after: int, mode: str) -> np.ndarray:
    """For every position of a padded axis, the position of the axis that it repeats, or −1 where it is zero."""
    positions = np.arange(size)
    if mode == "zeros":
        return np.pad(positions, (before, after), constant_values=-1)
    return np.pad(positions, (before, after), PAD_MODES[mode])  # type: ignore[call-overload]
