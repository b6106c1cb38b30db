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
from zellige.cpu.kernels.winograd import WinogradInput, WinogradProducts, WinogradStrip, sum_pitch
from zellige.cpu.kernels.winograd_transforms import POINTS
from zellige.cpu.layout import LINE, Planes, round_up
from zellige.cpu.tables.winograd import (
    Padding,
    cut_runs,
    input_items,
    output_table,
    products_items,
    strip_items,
    strip_widths,
    window_table,
)
from zellige.cpu.tables.winograd_weights import kept_channels, pack_winograd

GROUP_BANDS = 8         # the most bands of a group
FEW_STRIPS = 16         # fewer strips than this are transformed first and shared out by groups too
ITEMS = 32              # wanted at least, where strips are few
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
    needed; ``weight_bytes`` count the transformed weights.
    """

    calls: tuple[WinogradCall, ...]
    tiles: int
    weight_bytes: int


def plan_winograd(isa: Isa, weight: np.ndarray, bias: np.ndarray, source: Planes, target: Planes, padding: Padding,
                  epilogue: Epilogue = (), strips_of_their_own: bool | None = None,
                  group_bands: int | None = None, strips_first: bool | None = None) -> WinogradLayer:
    lanes, (rows, widest) = isa.lanes, isa.band
    cout, cin = weight.shape[:2]
    runs = cut_runs(target.images, target.height, target.width, lanes)
    widths = strip_widths(runs.vectors, widest)
    kept = kept_channels(weight, rows)
    fused = len(widths) >= FEW_STRIPS if strips_of_their_own is None else strips_of_their_own
    if group_bands is None:
        group_bands = GROUP_BANDS if fused else int(np.clip(len(widths) * len(kept) // ITEMS, 1, GROUP_BANDS))
    packed = pack_winograd(weight, kept, rows, group_bands)
    point_pitch = (-(-cin * lanes // LINE) | 1) * LINE
    vector_pitch = POINTS * point_pitch + LINE
    sums = round_up(group_bands * POINTS * sum_pitch(rows, widest, lanes), LINE)
    common: dict[str, Slot] = {"vector_pitch": vector_pitch, "point_pitch": point_pitch}
    windows: dict[str, Slot] = {"source_plane": source.plane, "source_row": source.row,
                                "windows": window_table(runs, source, target, padding, lanes)}
    bias_rows = np.zeros((packed.bands + 1) * rows, np.float32)
    bias_rows[rows:rows + cout] = bias
    outputs: dict[str, Slot] = {
        "groups": packed.groups, "starts": packed.starts, "columns": packed.columns * lanes, "weights": packed.values,
        "bias": bias_rows, "outputs": output_table(runs, target, lanes), "channels": cout,
        "target_plane": target.plane, "target_row": target.row, "rest": min(target.width, lanes),
        "rest_end": min(target.width, lanes) + target.row - target.width}
    if fused:
        scratch = widest * vector_pitch + sums
        slots = {**common, **windows, **outputs, "source_channels": cin, "group_count": len(packed.groups),
                 "items": strip_items(widths), "scratch": Scratch(scratch), "scratch_bytes": 4 * scratch}
        return WinogradLayer((WinogradCall(WinogradStrip(rows, widest, epilogue), slots, widths.astype(float)),), 0, packed.values.nbytes)
    items = input_items(runs.vectors, cin, CHUNK)
    first = WinogradCall(WinogradInput(), {**common, **windows, "items": items}, np.ones(len(items)))
    if strips_first is None:
        strips_first = packed.values.nbytes > 4 * runs.vectors * vector_pitch
    items = products_items(widths, len(packed.groups), strips_first)
    second = WinogradCall(WinogradProducts(rows, widest, epilogue), {
        **common, **outputs, "items": items, "scratch": Scratch(sums), "scratch_bytes": 4 * sums},
        (packed.group_columns[items[:, 2]] * items[:, 1]).astype(float))
    return WinogradLayer((first, second), runs.vectors * vector_pitch, packed.values.nbytes)
