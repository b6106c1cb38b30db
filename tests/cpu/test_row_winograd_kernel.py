"""The row kernel against a convolution in float64, over generated stems, with guards around every buffer."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_harness import NATIVE, check_assembly, kernel_assembly, run_kernel
from maps import Value, numbers

from zellige.cpu.isa import AVX2, AVX512, NEON
from zellige.cpu.kernels.copy import CopyKernel
from zellige.cpu.kernels.epilogue import ADD, activation
from zellige.cpu.kernels.row_transforms import PAIRS, POINTS, TAPS, TILE, filter_transform
from zellige.cpu.kernels.row_winograd import RowWinogradKernel
from zellige.cpu.layout import planes
from zellige.cpu.tables.row_winograd import RowFilters, row_work, staged_rows, strip_rows
from zellige.cpu.tables.windows import stage_work
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
    tiles, high = isa.lanes * data.draw(st.sampled_from([1, 2])), data.draw(st.sampled_from([2, 4, 6]))
    if data.draw(st.booleans()):
        tiles += isa.lanes // 2  # the vectors of a row overlap
    height = (high - 1) * stride[0] + kernel[0] - padding[0] - padding[1]
    width = (TILE * tiles - 1) * 2 + kernel[1] - padding[2] - padding[3] + data.draw(st.integers(0, 1))
    if height < 1:
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
    assert expected.shape == (images, outputs, high, TILE * tiles)
    residual = numbers(2, expected.shape)
    for step in epilogue:
        expected = expected + residual if step == ADD else np.maximum(expected, 0)
    source, target = Value.of(planes(*x.shape), x), Value.blank(planes(*expected.shape))
    operand = Value.of(target.layout, residual)
    filters = RowFilters.of(weight, stride)
    strip = strip_rows(filters, target.layout, isa)
    assert strip and high % strip == 0
    staged = Value.of(staged_rows(inputs, filters, target.layout), np.nan)
    copy = stage_work(source.layout, staged.layout, filters.stage, padding, mode, isa.lanes)
    run_kernel(CopyKernel(), {"source": source.slot, "target": staged.slot, **copy.tables}, copy.items, isa)
    rows = isa.band[0]
    widths, work, density = row_work(filters, bias, staged.layout, target.layout, rows, strip, isa)
    assert 0 <= density <= 1 and (density == 1 or (weight == 0).any())
    slots = {"source": staged.slot, "target": target.slot, **work.tables,
             "scratch": np.full(work.tables["scratch_bytes"] // 4, np.nan, np.float32)}
    if ADD in epilogue:
        slots |= {"operand0": operand.slot, "operand0_plane": operand.layout.plane}
    run_kernel(RowWinogradKernel(rows, widths, epilogue), slots, work.items, isa)
    target.check_row_margins()
    # Two to three times the rounding of a direct sum of as many products.
    scale = np.abs(weight).max(initial=0) * np.abs(x).max() * weight[0].size ** 0.5
    np.testing.assert_allclose(target.view(), expected, rtol=1e-5, atol=4e-6 * scale + 1e-6)


def test_rows_that_are_no_whole_tiles_or_vectors_are_left_to_others():
    filters = RowFilters.of(np.ones((8, 3, 7, 7), np.float32), (2, 2))
    assert strip_rows(filters, planes(1, 8, 112, 112), AVX512) == 8
    assert strip_rows(filters, planes(1, 8, 112, 114), AVX512) == 0
    assert strip_rows(filters, planes(1, 8, 112, 60), AVX512) == 0
    assert strip_rows(filters, planes(1, 8, 112, 112, row=115), AVX512) == 0
    assert strip_rows(filters, planes(1, 8, 113, 112), AVX512) == 0


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
