"""The row kernel against a convolution in float64, over generated stems, with guards around every buffer."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_harness import NATIVE, check_assembly, kernel_assembly, run_kernel
from maps import Value, numbers, plane_layouts

from zellige.cpu.isa import AVX2, AVX512, NEON
from zellige.cpu.kernels.copy import CopyKernel
from zellige.cpu.kernels.epilogue import ADD, activation
from zellige.cpu.kernels.row_transforms import PAIRS, POINTS, TAPS, TILE, filter_transform
from zellige.cpu.kernels.row_winograd import RowWinogradKernel
from zellige.cpu.layout import planes
from zellige.cpu.tables.row_winograd import FEWEST_ITEMS, RowFilters, cut_strips, row_work, staged_rows
from zellige.cpu.tables.windows import stage_work
from zellige.cpu.tables.winograd import cut_evenly
from zellige.graph.reference import evaluate


def test_the_transforms_are_winograds():
    """Sums of products at 7 points, interpolated: 4 outputs of any filter of 4 taps."""
    finite = np.array([sign * point for point in PAIRS for sign in (1, -1)])
    inputs, taps = np.random.default_rng(0).standard_normal(TILE + TAPS - 1), np.random.default_rng(1).standard_normal(TAPS)
    # By transposition: the transform of the inputs is that of the Toom-Cook product, transposed.
    others = [np.poly(np.delete(finite, index))[::-1] for index in range(len(finite))]
    to_points = np.array([np.pad(row, (0, 1)) for row in others] + [np.poly(finite)[::-1]])
    from_points = np.array([[*finite**power, float(power == TILE - 1)] for power in range(TILE)])
    assert filter_transform().shape == (POINTS, TAPS)
    found = from_points @ ((filter_transform() @ taps) * (to_points @ inputs))
    np.testing.assert_allclose(found, np.convolve(inputs, taps[::-1], "valid"), rtol=1e-12)


@given(data=st.data())
def test_any_stem(data):
    isa = data.draw(st.sampled_from(NATIVE))
    kernel = data.draw(st.tuples(st.integers(1, 7), st.integers(5, 8)))
    stride = (data.draw(st.integers(1, 3)), 2)
    padding = tuple(data.draw(st.integers(0, 3)) for _ in range(4))
    images, inputs, outputs = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3)), data.draw(st.integers(1, 17))
    wide, high = data.draw(st.integers(1, 9 * isa.lanes)), data.draw(st.integers(1, 7))
    height = (high - 1) * stride[0] + kernel[0] - padding[0] - padding[1]
    width = (wide - 1) * 2 + kernel[1] - padding[2] - padding[3] + data.draw(st.integers(0, 1))
    if height < 1 or width < 1:
        return
    mode = data.draw(st.sampled_from(["zeros", "replicate"]))
    epilogue = data.draw(st.sampled_from([(), (activation("relu"),), (ADD, activation("relu"))]))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    density = data.draw(st.sampled_from([0.0, 0.4, 1.0]))
    mask = random.random((-(-outputs // 8), inputs, kernel[0], 1)).repeat(8, 0)[:outputs] < density
    weight = (random.standard_normal((outputs, inputs, *kernel)) * mask).astype(np.float32)
    bias, x = numbers(3, (outputs,)), numbers(1, (images, inputs, height, width))
    attributes = {"stride": stride, "padding": padding, "padding_mode": mode, "dilation": (1, 1), "groups": 1}
    expected = evaluate("conv2d", attributes, [x.astype(np.float64), weight.astype(np.float64), bias.astype(np.float64)])
    assert expected.shape == (images, outputs, high, wide)
    residual = numbers(2, expected.shape)
    for step in epilogue:
        expected = expected + residual if step == ADD else np.maximum(expected, 0)
    source, target = Value.of(planes(*x.shape), x), Value.blank(data.draw(plane_layouts(expected.shape)))
    operand = Value.of(target.layout, residual)
    filters = RowFilters.of(weight, stride)
    strips = cut_evenly(high, data.draw(st.integers(1, high)))
    staged = Value.of(staged_rows(inputs, filters, target.layout), np.nan)
    copy = stage_work(source.layout, staged.layout, filters.stage, padding, mode, isa.lanes)
    run_kernel(CopyKernel(), {"source": source.slot, "target": staged.slot, **copy.tables}, copy.items, isa)
    widths, work, density = row_work(filters, bias, staged.layout, target.layout, strips, isa)
    assert 0 <= density <= 1 and (density == 1 or (weight == 0).any())
    slots = {"source": staged.slot, "target": target.slot, **work.tables,
             "scratch": np.full(work.tables["scratch_bytes"] // 4, np.nan, np.float32)}
    if ADD in epilogue:
        slots |= {"operand0": operand.slot, "operand0_plane": operand.layout.plane}
    run_kernel(RowWinogradKernel(isa.band[0], widths, epilogue), slots, work.items, isa)
    target.check_row_margins()
    # Two to three times the rounding of a direct sum of as many products.
    scale = np.abs(weight).max(initial=0) * np.abs(x).max() * weight[0].size ** 0.5
    np.testing.assert_allclose(target.view(), expected, rtol=1e-5, atol=4e-6 * scale + 1e-6)


@pytest.mark.parametrize("isa", [AVX512, AVX2, NEON], ids=lambda isa: isa.name)
@pytest.mark.parametrize(("high", "wide", "row"), [(112, 112, 0), (113, 113, 0), (113, 113, 116), (81, 81, 0), (49, 49, 0),
                                                  (7, 9, 0)])
def test_strips_share_the_rows_out(isa, high, wide, row):
    filters, target = RowFilters.of(np.ones((64, 3, 7, 7), np.float32), (2, 2)), planes(1, 64, high, wide, row=row)
    strips = cut_strips(filters, target, isa)
    rows = strips[:, 1] - strips[:, 0]
    assert strips[0, 0] == 0 and strips[-1, 1] == high and (strips[1:, 0] == strips[:-1, 1]).all()
    assert rows.max() - rows.min() <= 1 and len(strips) >= min(high, FEWEST_ITEMS)
    _, work, _ = row_work(filters, np.zeros(64, np.float32), staged_rows(3, filters, target), target, strips, isa)
    assert work.items == len(strips) and len(set(work.costs)) == len(set(rows))


def test_too_many_planes_are_left_to_others():
    filters = RowFilters.of(np.ones((8, 64, 7, 7), np.float32), (2, 2))
    assert len(cut_strips(filters, planes(1, 8, 112, 112), AVX512)) == 0
    assert len(cut_strips(filters, planes(1, 8, 28, 28), AVX512)) > 0


def test_compiles_for_every_instruction_set():
    check_assembly(RowWinogradKernel(8, (3, 2), (ADD, activation("relu"))))


@pytest.mark.parametrize("isa", [AVX512, AVX2, NEON], ids=lambda isa: isa.name)
def test_inner_loop_keeps_everything_in_registers(isa):
    rows, width = isa.band
    text = kernel_assembly(RowWinogradKernel(rows, (width,)), isa)
    fma = r"\bvfmadd|\bfmla"
    loops = [body for body in re.split(r"\n[.\w$]+:", text) if len(re.findall(fma, body)) == rows * width]
    assert loops
    for body in loops:
        last = [match.end() for match in re.finditer(fma, body)][-1]
        back = re.compile(r"\n\s+(j[a-z]+|b\.[a-z]+)\s").search(body, last)
        assert back, "the loop does not end with a jump"
        assert not re.search(r"\(%rsp|\[sp|\[x29", body[:back.start()]), "the inner loop spills"
