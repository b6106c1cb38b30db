"""The direct path of a convolution: the band kernel, from staged or direct planes.

A convolution with a stride or with another padding than zeros can't read its source as it lies. It makes planes of its own, with
the padding written out and, for a stride, one plane for each phase (pixels y ≡ py, x ≡ px modulo the stride): there every tap
is an offset again. Each thread makes those that it reads.
"""

from __future__ import annotations

import numpy as np

from zellige.cpu.calls import Scratch, Slot
from zellige.cpu.costs import Demand
from zellige.cpu.kernels.band import BandKernel
from zellige.cpu.layout import Margins, Planes
from zellige.cpu.lower.convolution import Convolution
from zellige.cpu.lower.lowering import Lowering
from zellige.cpu.lower.paths import Path
from zellige.cpu.storage import is_direct
from zellige.cpu.tables.band import Taps, band_costs, band_rows, band_work
from zellige.cpu.tables.staged_band import staged_band_work
from zellige.cpu.tables.windows import Stage
from zellige.cpu.tables.work import Work
from zellige.passes.sparsity import band_columns

DENSE = 0.999
"""The share of kept weights from which on a layer counts as dense."""


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
