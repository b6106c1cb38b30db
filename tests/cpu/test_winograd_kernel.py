"""The Winograd kernels against a convolution in float64, over generated layers and layouts, with guards around every buffer."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_harness import NATIVE, check_assembly, kernel_assembly, run_kernel
from maps import Value, numbers, plane_layouts

from zellige.cpu.calls import Scratch
from zellige.cpu.isa import AVX2, AVX512, NEON
from zellige.cpu.kernels.epilogue import ADD, Epilogue, activation
from zellige.cpu.kernels.winograd import WinogradInput, WinogradGroup, WinogradStrip
from zellige.cpu.layout import LINE, Margins, Planes, planes
from zellige.cpu.lower.winograd import WinogradPlan
from zellige.graph.reference import evaluate

RELU = activation("relu")
ERROR = 5e-5  # of the largest output: what the transforms may cost a layer


def sparse_weight(seed: int, cout: int, cin: int, density: float, block: tuple[int, int]) -> np.ndarray:
    random = np.random.default_rng(seed)
    mask = np.kron(random.random((-(-cout // block[0]), -(-cin // block[1]))) < density, np.ones(block, bool))
    return (random.standard_normal((cout, cin, 3, 3)) * mask[:cout, :cin, None, None]).astype(np.float32)


def surrounded_by_nan(layout: Planes, array: np.ndarray, padding: tuple[int, int, int, int]) -> Value:
    """A source of which only the padded map may be read."""
    top, bottom, left, right = padding
    value = Value(layout, np.full(layout.elements, np.nan, np.float32))
    for channel in range(layout.channels):
        for image in range(layout.images):
            first = layout.head + channel * layout.plane + image * layout.image
            for y in range(-top, layout.height + bottom):
                value.buffer[first + y * layout.row - left:first + y * layout.row + layout.width + right] = 0.0
    value.view()[...] = array
    return value


def run_layer(plan: WinogradPlan, values: dict[str, object]) -> None:
    """All calls of a layer, each on guarded memory; tiles go from one to the next."""
    tiles = np.zeros(plan.tiles, np.float32)
    for call in plan.calls:
        slots = {name: np.zeros(slot.elements, np.float32) if isinstance(slot, Scratch) else slot
                 for name, slot in call.slots.items()}
        slots |= {name: value for name, value in values.items() if name in call.kernel.SLOTS}
        if "tiles" in call.kernel.SLOTS:
            slots["tiles"] = tiles
        run_kernel(call.kernel, slots, len(call.costs), plan.isa)


def expected_output(x, weight, bias, padding, epilogue: Epilogue, residual) -> np.ndarray:
    attributes = {"stride": (1, 1), "padding": padding, "padding_mode": "zeros", "dilation": (1, 1), "groups": 1}
    result = evaluate("conv2d", attributes, [array.astype(np.float64) for array in (x, weight, bias)])
    for step in epilogue:
        result = result + residual if step == ADD else np.maximum(result, 0)
    return result


@given(data=st.data())
def test_any_three_by_three_convolution(data):
    isa = data.draw(st.sampled_from(NATIVE))
    padding = tuple(data.draw(st.integers(0, 1)) for _ in range(4))
    images, cin, cout = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 11)), data.draw(st.integers(1, 19))
    height = data.draw(st.integers(max(1, 3 - padding[0] - padding[1]), 17))
    width = data.draw(st.integers(max(1, 3 - padding[2] - padding[3]), 40))
    epilogue = data.draw(st.sampled_from([(), (RELU,), (ADD, RELU)]))
    block = data.draw(st.sampled_from([(8, 8), (8, 4), (8, 1), (1, 1)]))
    weight = sparse_weight(data.draw(st.integers(0, 99)), cout, cin, data.draw(st.sampled_from([0.0, 0.4, 1.0])), block)
    x, bias = numbers(1, (images, cin, height, width)), numbers(2, (cout,))
    source_layout = planes(images, cin, height, width, Margins(*padding), row=width + data.draw(st.integers(0, 5)))
    shape = (images, cout, height + padding[0] + padding[1] - 2, width + padding[2] + padding[3] - 2)
    target_layout = data.draw(plane_layouts(shape))
    residual = numbers(3, shape)
    expected = expected_output(x, weight, bias, padding, epilogue, residual)
    operand = Value.of(target_layout, residual)
    for limits in ({"many_strips": 1, "group_bands": 2}, {"many_strips": 99, "group_bands": 2, "group_strips": 2}):
        plan = WinogradPlan(isa, weight, bias, source_layout, target_layout, padding, epilogue, **limits)
        source, target = surrounded_by_nan(source_layout, x, padding), Value.blank(target_layout)
        run_layer(plan, {"source": source.slot, "target": target.slot,
                                   "operand0": operand.slot, "operand0_plane": target_layout.plane})
        target.check_row_margins()
        assert abs(target.view() - expected).max() <= ERROR * abs(expected).max(initial=1e-30)
