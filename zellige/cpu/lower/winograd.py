"""A 3 × 3 convolution of stride 1 through Winograd's algorithm: its plan, its call and what it costs.

Where strips are many, each is one item from source to target. Where they are few, or too few to share out evenly, items are groups
of bands on a part of the map. Threads that share a part each transform all of its tiles, which the model counts once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from zellige.cpu.calls import Scratch, Slot
from zellige.cpu.costs import Demand
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.epilogue import Epilogue
from zellige.cpu.kernels.kernel import Kernel
from zellige.cpu.kernels.winograd import WinogradGroup, WinogradStrip
from zellige.cpu.kernels.winograd_pieces import strip_kinds, sum_pitch
from zellige.cpu.kernels.winograd_points import LARGE, TAPS, Transform
from zellige.cpu.kernels.winograd_pooling import POOL
from zellige.cpu.kernels.winograd_runs import tilings
from zellige.cpu.layout import LINE, Planes, round_up
from zellige.cpu.tables.parts import cut_evenly, cut_parts, with_beginnings
from zellige.cpu.tables.winograd import (
    Padding,
    Runs,
    cut_runs,
    cut_strips,
    group_items,
    output_table,
    pool_runs,
    window_table,
)
from zellige.cpu.tables.winograd_costs import filter_cycles, input_cycles, output_cycles, product_cycles
from zellige.cpu.tables.winograd_weights import column_lists, kept_channels, pack_halves, pack_points

MANY_STRIPS = 12        # from here on they are shared out evenly enough, over a few threads
GROUP_BANDS = 8         # the most bands of a group
GROUP_COLUMNS = 1024    # whose transformed filters a group may hold, so that they and the tiles stay in the second-level cache
GROUPS = 4              # at least, if there are so many bands
NARROW_VECTORS = 0.95   # as many vectors as with wide runs, or fewer, must be left for narrow ones to pay
PART_VECTORS = (2, 4)   # the fewest of a part of the map: one would wait for weights; the most: caches should hold their tiles


@dataclass(frozen=True, eq=False)
class WinogradCall:
    """A call without the places of values. A barrier follows it."""

    kernel: Kernel
    slots: dict[str, Slot]
    costs: np.ndarray


@dataclass(eq=False)
class WinogradPlan:
    """How a layer of Cout × Cin × 3 × 3 weights runs, with tiles of one size. Padding lies in the source's margins, as zeros, or is
    masked out where there are none. With ``pooled``, the target is the map of the largest of each 2 × 2 outputs.

    Weights are packed when the ``call`` is asked for, each time. ``density`` is the share of the columns that are kept,
    ``cycles`` what the model says it takes. With other limits than the usual ones (``many_strips``,
    ``group_bands``, ``narrow_vectors``, ``part_vectors``) small layers show what large ones do.
    """

    isa: Isa
    weight: np.ndarray
    bias: np.ndarray
    source: Planes
    target: Planes
    padding: Padding
    epilogue: Epilogue = ()
    pooled: bool = False
    transform: Transform = LARGE
    many_strips: int = MANY_STRIPS
    group_bands: int = GROUP_BANDS
    narrow_vectors: float = NARROW_VECTORS
    part_vectors: tuple[int, int] = PART_VECTORS

    def __post_init__(self) -> None:
        self._check()
        self.rows, self.vectors = self.isa.band
        self.runs = self._cut_runs()
        whole = np.array([[0, self.runs.vectors]])
        self.by_strips = len(*cut_strips(whole, self.runs.share, self.vectors)) >= self.many_strips
        parts = whole if self.by_strips else cut_parts(self.runs.vectors, *self.part_vectors)
        self.parts = cut_strips(parts, self.runs.share, self.vectors)
        self.strips = np.concatenate(self.parts)
        kept = kept_channels(self.weight, self.rows)
        self.density = float(kept.mean())
        self.lists = column_lists(kept)
        self.groups = cut_evenly(len(kept), self._bands_of_group())
        self.point_pitch = (-(-self.source.channels * self.isa.lanes // LINE) | 1) * LINE
        self.vector_pitch = self.transform.points * self.point_pitch + LINE
        self.costs = self._strip_costs() if self.by_strips else self._group_costs()
        self.cycles = float(self.costs.sum())

    def _check(self) -> None:
        top, bottom, left, right = self.padding
        height, width = self.source.height + top + bottom - 2, self.source.width + left + right - 2
        expected = (self.source.images, len(self.weight), height // self.together, width // self.together)
        if self.weight.shape[1:] != (self.source.channels, 3, 3) or self.target.shape != expected:
            raise ValueError(f"a source of {self.source.shape} with padding {self.padding} and weights of {self.weight.shape} "
                             f"make {expected}, not {self.target.shape}")

    @property
    def together(self) -> int:
        """Outputs along a side of what becomes a pixel of the target."""
        return POOL if self.pooled else 1

    def _cut_runs(self) -> Runs:
        """Narrow runs where they save vectors."""
        height, width = self.together * self.target.height, self.together * self.target.width
        wide, *narrow = (cut_runs(self.target.images, height, width, self.isa.lanes, tiling)
                         for tiling in tilings(self.transform, self.isa))
        return next((runs for runs in narrow if runs.load <= self.narrow_vectors * wide.load), wide)

    def _bands_of_group(self) -> int:
        bands = len(self.lists.counts)
        if self.by_strips:
            return min(self.group_bands, bands)
        fitting = int(GROUP_COLUMNS * bands / max(1, len(self.lists)))
        return int(np.clip(min(fitting, bands // GROUPS), 1, self.group_bands))

    # Work items and what they cost

    @cached_property
    def group_items(self) -> np.ndarray:
        return group_items(self.parts, len(self.groups))

    def _band_costs(self) -> np.ndarray:
        """Cycles of every band with every strip, shape (bands, strips)."""
        width = self.strips[:, 1]
        outputs = output_cycles(self.transform, width, self.rows, self.isa.lanes, 4 * self.target.elements)
        share = np.array([strip_kinds(self.vectors, self.transform.tile)[kind][1] for kind in self.strips[:, 2]])
        return product_cycles(self.transform, self.lists.counts[:, None], width, share, self.rows) + outputs

    def _strip_costs(self) -> np.ndarray:
        return self._band_costs().sum(0) + input_cycles(self.transform, self.source.channels, self.strips[:, 1])

    def _group_costs(self) -> np.ndarray:
        first_strip, end_strip, group = self.group_items.T
        until = np.pad(self._band_costs().cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        first, end = self.groups[group].T
        products = until[end, end_strip] - until[end, first_strip] - until[first, end_strip] + until[first, first_strip]
        products += filter_cycles(self.transform, self.lists.starts[end] - self.lists.starts[first])
        vectors = np.array([part[:, 1].sum() for part in self.parts])
        part_of_item = np.repeat(np.arange(len(self.parts)), len(self.groups))
        return with_beginnings(products, part_of_item, input_cycles(self.transform, self.source.channels, vectors))

    def demand(self, map_bytes: int) -> Demand:
        """What the call asks of a machine, before weights are packed; ``map_bytes`` are those of all that the layer reads and
        writes."""
        halves = not self.by_strips and self.transform.filter_to_points
        values = self.transform.window * TAPS if halves else self.transform.points
        weight_bytes = 4 * self.rows * len(self.lists) * values
        return Demand("winograd_strip" if self.by_strips else "winograd_group", self.cycles, weight_bytes, map_bytes)

    # The call

    @property
    def description(self) -> str:
        tiles = f"{self.runs.vectors} vectors of {self.isa.lanes} tiles"
        return f"{tiles} in {len(self.strips)} strips" if self.by_strips else f"{tiles} by {len(self.groups)} groups of bands"

    @property
    def call(self) -> WinogradCall:
        """The call, with packed weights; ``source``, ``target`` and operands are left for the caller to fill in."""
        variant = (self.rows, self.vectors, self.runs.tiling, self.epilogue, self.pooled)
        if self.by_strips:
            return WinogradCall(WinogradStrip(*variant), self._strip_slots(), self.costs)
        return WinogradCall(WinogradGroup(*variant), self._group_slots(), self.costs)

    def _input_slots(self) -> dict[str, Slot]:
        return {"source_plane": self.source.plane, "source_row": self.source.row, "vector_pitch": self.vector_pitch,
                "point_pitch": self.point_pitch, "source_channels": self.source.channels,
                "windows": window_table(self.runs, self.source, self.padding)}

    def _output_slots(self) -> dict[str, Slot]:
        runs = pool_runs(self.runs) if self.pooled else self.runs
        rest = min(self.target.width, runs.width)
        return {"vector_pitch": self.vector_pitch, "point_pitch": self.point_pitch, "strips": self.strips, "groups": self.groups,
                "starts": self.lists.starts, "columns": self.lists.channel * self.isa.lanes,
                "bias": np.ascontiguousarray(self.bias, np.float32),
                "outputs": output_table(runs, self.target), "channels": len(self.weight), "target_plane": self.target.plane,
                "target_row": self.target.row, "rest": rest, "rest_end": rest + self.target.row - self.target.width}

    def _strip_slots(self) -> dict[str, Slot]:
        return {**self._input_slots(), **self._output_slots(), **self._scratch(self.vectors * self.vector_pitch + self._sums()),
                "weights": pack_points(self.transform, self.weight, self.lists, self.rows, self.groups),
                "group_count": len(self.groups)}

    def _group_slots(self) -> dict[str, Slot]:
        halves = self.transform.filter_to_points is not None
        columns = int(np.diff(self.lists.starts[self.groups]).max()) if halves else 0
        strips, vectors = max(map(len, self.parts)), max(int(part[:, 1].sum()) for part in self.parts)
        name, pack = ("halves", pack_halves) if halves else ("weights", pack_points)
        return {**self._input_slots(), **self._output_slots(), **self._scratch(
            vectors * self.vector_pitch + columns * self.transform.window * self.rows + strips * self._sums()),
                name: pack(self.transform, self.weight, self.lists, self.rows, self.groups),
                "items": self.group_items, "most_columns": columns, "most_vectors": vectors}

    def _sums(self) -> int:
        """Elements of the sums of a group with one strip."""
        return int(np.diff(self.groups).max()) * self.transform.points * sum_pitch(self.rows, self.vectors, self.isa.lanes)

    def _scratch(self, elements: int) -> dict[str, Slot]:
        elements = round_up(elements, LINE)
        return {"scratch": Scratch(elements), "scratch_bytes": 4 * elements}
