"""A 3 × 3 convolution of stride 1 through Winograd's algorithm: its tables, its calls and what they cost.

``plan_winograd`` computes everything but the places of values: those slots (``source``, ``target``, ``tiles`` and the operands of
the epilogue) are left for the caller to fill.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zellige.cpu.calls import Scratch, Slot
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.epilogue import Epilogue
from zellige.cpu.kernels.kernel import Kernel
from zellige.cpu.kernels.winograd import WinogradGroup, WinogradInput, WinogradStrip
from zellige.cpu.kernels.winograd_pieces import sum_pitch
from zellige.cpu.kernels.winograd_transforms import POINTS, WINDOW
from zellige.cpu.layout import LINE, Planes, round_up
from zellige.cpu.tables.winograd import (
    Padding,
    cut_runs,
    group_items,
    input_items,
    output_table,
    strip_table,
    strip_widths,
    window_table,
)
from zellige.cpu.tables.winograd_weights import column_lists, cut_groups, kept_channels, pack_halves, pack_points

GROUP_BANDS = 8         # the most bands of a group
FEW_STRIPS = 4          # so many strips or fewer are transformed first and shared out by groups
CHUNK = 16              # channels of an item of the input transform


@dataclass(frozen=True, eq=False)
class WinogradCall:
    """One call without the places of values; a barrier follows it."""

    kernel: Kernel
    slots: dict[str, Slot]
    costs: np.ndarray


@dataclass(frozen=True, eq=False)
class WinogradLayer:
    """``tiles`` are the elements of a buffer that all threads share from the first call to the last, 0 if none is
    needed; ``weight_bytes`` count the weights as packed.
    """

    calls: tuple[WinogradCall, ...]
    tiles: int
    weight_bytes: int


def plan_winograd(isa: Isa, weight: np.ndarray, bias: np.ndarray, source: Planes, target: Planes, padding: Padding,
                  epilogue: Epilogue = (), by_strips: bool | None = None, group_bands: int = 0, most_strips: int = 0) -> WinogradLayer:
    lanes, (rows, widest) = isa.lanes, isa.band
    cout, cin = weight.shape[:2]
    runs = cut_runs(target.images, target.height, target.width, lanes)
    widths = strip_widths(runs.vectors, widest)
    lists = column_lists(kept_channels(weight, rows))
    bands = len(lists.counts)
    if by_strips is None:
        by_strips = len(widths) > FEW_STRIPS
    groups = cut_groups(bands, group_bands or (GROUP_BANDS if by_strips else 4))
    point_pitch = (-(-cin * lanes // LINE) | 1) * LINE
    vector_pitch = POINTS * point_pitch + LINE
    sums = int(np.diff(groups).max()) * POINTS * sum_pitch(rows, widest, lanes)
    bias_rows = np.zeros((bands + 1) * rows, np.float32)
    bias_rows[rows:rows + cout] = bias
    rest = min(target.width, lanes)
    windows: dict[str, Slot] = {
        "vector_pitch": vector_pitch, "point_pitch": point_pitch, "source_plane": source.plane, "source_row": source.row,
        "windows": window_table(runs, source, target, padding, lanes)}
    outputs: dict[str, Slot] = {
        "vector_pitch": vector_pitch, "point_pitch": point_pitch, "strips": strip_table(widths), "groups": groups,
        "starts": lists.starts, "columns": lists.channel * lanes, "bias": bias_rows, "outputs": output_table(runs, target, lanes),
        "channels": cout, "target_plane": target.plane, "target_row": target.row,
        "rest": rest, "rest_end": rest + target.row - target.width}
    if by_strips:
        scratch = round_up(widest * vector_pitch + sums, LINE)
        values = pack_points(weight, lists, rows, groups)
        slots = {**windows, **outputs, "weights": values, "source_channels": cin, "group_count": len(groups),
                 "scratch": Scratch(scratch), "scratch_bytes": 4 * scratch}
        return WinogradLayer((WinogradCall(WinogradStrip(rows, widest, epilogue), slots, widths.astype(float)),), 0, values.nbytes)
    items = input_items(runs.vectors, cin, CHUNK)
    first = WinogradCall(WinogradInput(), {**windows, "items": items}, np.ones(len(items)))
    most = most_strips or len(widths)
    items = group_items(len(widths), most, len(groups))
    columns = int(np.diff(lists.starts[groups]).max())
    scratch = round_up(WINDOW * rows * columns + sums * min(most, len(widths)), LINE)
    halves = pack_halves(weight, lists, rows, groups)
    second = WinogradCall(WinogradGroup(rows, widest, epilogue), {
        **outputs, "items": items, "halves": halves, "most_columns": columns,
        "scratch": Scratch(scratch), "scratch_bytes": 4 * scratch},
        (np.diff(lists.starts[groups])[:, 0][items[:, 2]] * (items[:, 1] - items[:, 0])).astype(float))
    return WinogradLayer((first, second), runs.vectors * vector_pitch, halves.nbytes)
