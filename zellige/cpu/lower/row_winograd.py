"""Convolutions with a stride of 2 and 5 to 8 taps a row, as stems have them, through Winograd's algorithm along rows."""

from __future__ import annotations

from zellige.cpu.calls import Scratch
from zellige.cpu.costs import Demand
from zellige.cpu.kernels.copy import CopyKernel
from zellige.cpu.kernels.row_winograd import RowWinogradKernel
from zellige.cpu.layout import Planes
from zellige.cpu.lower.convolution import Convolution
from zellige.cpu.lower.lowering import Lowering
from zellige.cpu.lower.paths import Path
from zellige.cpu.storage import has_row_tiles
from zellige.cpu.tables.row_winograd import RowFilters, cut_strips, heights, row_work, staged_rows
from zellige.cpu.tables.windows import stage_work


def row_winograd_paths(lowering: Lowering, convolution: Convolution) -> list[Path]:
    """The row kernel, where the points of some rows of the source are not too many."""
    node, isa = convolution.node, lowering.isa
    if not (lowering.options.winograd and has_row_tiles(lowering.graph, node)):
        return []
    source, target = lowering.storage[node.inputs[0]], lowering.planes(node.name)
    assert isinstance(target.layout, Planes)
    filters = RowFilters.of(convolution.weight, convolution.stride)
    strips = cut_strips(filters, target.layout, isa)
    if not len(strips):
        return []
    staged = staged_rows(source.layout.shape[1], filters, target.layout)
    widths, work, density = row_work(filters, convolution.bias, staged, target.layout, strips, isa)
    copies = stage_work(source.layout, staged, filters.stage, convolution.padding, str(node.attributes["padding_mode"]), isa.lanes)

    def append() -> None:
        planes = lowering.storage.reserve(f"{node.name} staged", staged)
        lowering.call(node, CopyKernel(), {"source": source.place, "target": planes.place, **copies.tables}, copies.costs)
        scratch = work.tables["scratch_bytes"]
        assert isinstance(scratch, int)
        lowering.call(node, RowWinogradKernel(isa.band[0], widths, lowering.epilogue(node)), {
            "source": planes.place, "target": target.place, "scratch": Scratch(scratch // 4), **work.tables,
            **lowering.operand_slots(node)}, work.costs)

    rows = " or ".join(map(str, heights(strips)[0]))
    demand = Demand("winograd_strip", float(work.costs.sum()), work.nbytes, lowering.map_bytes(node))
    return [Path("row winograd", f"F(4, 4) along rows, {len(work.costs)} strips of {rows} rows", density, (demand,), append)]
