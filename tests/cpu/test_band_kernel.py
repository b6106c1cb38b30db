"""The band kernel against a convolution in float64, over generated layers and layouts, with guards around every buffer."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inner_loops import inner_loops, on_stack
from kernel_harness import NATIVE, check_assembly, kernel_assembly, run_kernel
from maps import Value, numbers

from zellige.cpu.isa import AVX2, AVX512, NEON
from zellige.cpu.kernels.band import BandKernel, Tile
from zellige.cpu.kernels.epilogue import ADD, activation
from zellige.cpu.layout import Margins, planes
from zellige.cpu.tables.band import Taps, band_rows, band_work
from zellige.cpu.tables.staged_band import staged_band_work
from zellige.cpu.tables.tiles import singles_beside, widest_tile
from zellige.cpu.tables.windows import Stage
from zellige.graph.reference import evaluate
from zellige.passes.sparsity import band_columns


def sparse_weight(seed: int, shape: tuple[int, ...], density: float) -> np.ndarray:
    """Random weights, zero in random 4-row, 2-column blocks, some of them per tap."""
    random = np.random.default_rng(seed)
    outputs, inputs, height, width = shape
    taps = (height, width) if random.random() < 0.5 else (1, 1)
    mask = random.random((-(-outputs // 4), -(-inputs // 2), *taps)) < density
    mask = np.kron(mask, np.ones((4, 2, 1, 1), bool))[:outputs, :inputs]
    return (random.standard_normal(shape) * mask).astype(np.float32)


def tolerance(weight: np.ndarray, x: np.ndarray) -> float:
    """n roundings of half a unit each in a sum of n products: the usual bound, with what a product can be at most."""
    terms = weight[0].size
    return float(terms * 2.0**-24 * np.abs(weight).max(initial=0) * np.abs(x).max(initial=0) * max(1, terms) ** 0.5) + 1e-6


@given(data=st.data())
def test_any_stride_one_convolution(data):
    groups = data.draw(st.sampled_from([1, 1, 2, 3]))
    inputs, outputs = groups * data.draw(st.integers(1, 6)), groups * data.draw(st.integers(1, 19))
    kernel = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 4)))
    dilation = data.draw(st.tuples(st.integers(1, 2), st.integers(1, 3)))
    padding = tuple(data.draw(st.integers(0, 3)) for _ in range(4))
    images = data.draw(st.integers(1, 2))
    reach = [(size - 1) * step for size, step in zip(kernel, dilation, strict=True)]
    height = data.draw(st.integers(max(1, reach[0] - padding[0] - padding[1] + 1), 12))
    width = data.draw(st.integers(max(1, reach[1] - padding[2] - padding[3] + 1), 45))
    isa = data.draw(st.sampled_from(NATIVE))
    density = data.draw(st.sampled_from([0.0, 0.3, 1.0]))
    weight = sparse_weight(data.draw(st.integers(0, 99)), (outputs, inputs // groups, *kernel), density)
    bias = numbers(3, (outputs,))
    epilogue = data.draw(st.sampled_from([(), (activation("relu"),), (ADD, activation("relu")), (activation("relu6"), ADD)]))
    attributes = {"stride": (1, 1), "padding": padding, "padding_mode": "zeros", "dilation": dilation, "groups": groups}
    x = numbers(1, (images, inputs, height, width))
    expected = evaluate("conv2d", attributes, [x.astype(np.float64), weight.astype(np.float64), bias.astype(np.float64)])
    residual = numbers(2, expected.shape)
    for step in epilogue:
        expected = expected + residual if step == ADD else np.clip(expected, 0, 6 if step[1] == "relu6" else None)
    masked = data.draw(st.booleans())
    if masked:
        # Flat maps, as far as the sizes let them: rows as long as the wider side, images without a gap.
        row = max(width, expected.shape[3])
        source_layout, target_layout = planes(images, inputs, height, width, row=row), planes(*expected.shape, row=row)
    else:
        source_layout = planes(images, inputs, height, width, Margins(*padding), row=width + data.draw(st.integers(0, 6)))
        target_layout = planes(*expected.shape, row=source_layout.row if data.draw(st.booleans()) else 0)
    source, target = Value.of(source_layout, x), Value.blank(target_layout)
    operand = Value.of(target_layout, residual)
    rows = band_rows(outputs, groups, isa)
    bands = band_columns(weight, groups, rows)
    taps = Taps(kernel, dilation, (padding[0], padding[2]), masked=masked)
    tiles, work = band_work(bands, bias, taps, source_layout, target_layout, rows, isa)
    slots = {"source": source.slot, "target": target.slot, **work.tables}
    if ADD in epilogue:
        slots |= {"operand0": operand.slot, "operand0_plane": target_layout.plane}
    run_kernel(BandKernel(rows, tiles, epilogue, masked), slots, work.items, isa)
    target.check_row_margins()
    np.testing.assert_allclose(target.view(), expected, rtol=1e-5, atol=tolerance(weight, x))


@given(data=st.data())
def test_single_pixels_beside_vectors(data):
    """Maps whose pixels are whole vectors and a few: 7 × 7, 14 × 14, 17 × 17, with every epilogue and short bands."""
    isa = data.draw(st.sampled_from(NATIVE))
    images = data.draw(st.integers(1, 3))
    height, width = data.draw(st.sampled_from([(7, 7), (14, 14), (17, 17), (3, 11), (1, 17), (9, 2)]))
    outputs, inputs = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 5))
    weight = sparse_weight(data.draw(st.integers(0, 99)), (outputs, inputs, 3, 3), 0.7)
    bias, x = numbers(3, (outputs,)), numbers(1, (images, inputs, height, width))
    residual = numbers(2, (images, outputs, height, width))
    attributes = {"stride": (1, 1), "padding": (1, 1, 1, 1), "padding_mode": "zeros", "dilation": (1, 1), "groups": 1}
    expected = evaluate("conv2d", attributes, [x.astype(np.float64), weight.astype(np.float64), bias.astype(np.float64)])
    expected = np.maximum(expected + residual, 0)
    source, target = Value.of(planes(*x.shape), x), Value.blank(planes(*expected.shape))
    operand = Value.of(target.layout, residual)
    rows = band_rows(outputs, 1, isa)
    bands, taps = band_columns(weight, 1, rows), Taps((3, 3), origin=(1, 1), masked=True)
    tiles, work = band_work(bands, bias, taps, source.layout, target.layout, rows, isa)
    pixels = sum(int(width) * isa.lanes + int(singles) for _, width, singles, band in work.tables["items"] if band == 0)
    assert pixels >= expected[:, 0].size
    slots = {"source": source.slot, "target": target.slot, **work.tables,
             "operand0": operand.slot, "operand0_plane": operand.layout.plane}
    run_kernel(BandKernel(rows, tiles, (ADD, activation("relu")), masked=True), slots, work.items, isa)
    target.check_row_margins()
    np.testing.assert_allclose(target.view(), expected, rtol=1e-5, atol=tolerance(weight, x))


def test_seven_by_seven_pixels_are_three_vectors_and_a_single():
    layout = planes(1, 8, 7, 7)
    bands = band_columns(np.ones((8, 8, 1, 1), np.float32))
    tiles, _ = band_work(bands, np.zeros(8, np.float32), Taps((1, 1)), layout, layout, 8, AVX512)
    assert tiles == (Tile(3, 1),)


@given(data=st.data())
def test_any_convolution_with_a_stride_through_staged_planes(data):
    isa = data.draw(st.sampled_from(NATIVE))
    kernel = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = data.draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = tuple(data.draw(st.integers(0, 2)) for _ in range(4))
    reach = [(size - 1) * step for size, step in zip(kernel, dilation, strict=True)]
    height = data.draw(st.integers(max(1, reach[0] - padding[0] - padding[1] + 1), 14))
    width = data.draw(st.integers(max(1, reach[1] - padding[2] - padding[3] + 1), 40))
    images, inputs, outputs = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 4)), data.draw(st.integers(1, 9))
    weight = sparse_weight(data.draw(st.integers(0, 99)), (outputs, inputs, *kernel), 0.7)
    bias, x = numbers(3, (outputs,)), numbers(1, (images, inputs, height, width))
    attributes = {"stride": stride, "padding": padding, "padding_mode": "zeros", "dilation": dilation, "groups": 1}
    expected = evaluate("conv2d", attributes, [x.astype(np.float64), weight.astype(np.float64), bias.astype(np.float64)])
    flat = data.draw(st.booleans())
    longest = expected.shape[3] + (0 if flat else reach[1] // stride[1])
    source, target = Value.of(planes(*x.shape), x), Value.blank(planes(*expected.shape, row=longest))
    taps = Taps(kernel, dilation, stage=Stage.of(kernel, dilation, stride, flat))
    rows = band_rows(outputs, 1, isa)
    bands = band_columns(weight, 1, rows)
    tiles, elements, work = staged_band_work(bands, bias, taps, source.layout, target.layout, padding, "zeros", rows, isa)
    slots = {"source": source.slot, "target": target.slot, **work.tables, "scratch": np.full(elements, np.nan, np.float32)}
    run_kernel(BandKernel(rows, tiles, staged=True), slots, work.items, isa)
    target.check_row_margins()
    np.testing.assert_allclose(target.view(), expected, rtol=1e-5, atol=tolerance(weight, x))


def test_a_part_of_the_map_is_staged_for_all_of_its_tiles():
    """28 × 28 pixels at a stride of 2 are 17 tiles in three parts: 2 rows of phases and 3 columns make 6 planes of a channel."""
    source, target = planes(1, 8, 56, 56), planes(1, 8, 28, 28)
    bands = band_columns(np.ones((8, 8, 3, 3), np.float32))
    taps = Taps((3, 3), stage=Stage.of((3, 3), (1, 1), (2, 2), flat=True))
    _, elements, work = staged_band_work(bands, np.zeros(8, np.float32), taps, source, target, (1, 1, 1, 1), "zeros", 8, AVX512)
    first, end = np.unique(work.tables["stages"], axis=0).T
    assert (first[1:] == end[:-1]).all() and len(first) == 3 and end[-1] == len(work.tables["copies"]) == 3 * 8
    assert elements < 0.7 * 6 * 8 * 29 * 28


def test_compiles_for_every_instruction_set():
    check_assembly(BandKernel(8, (Tile(3), Tile(2)), (ADD, activation("relu"))))
    check_assembly(BandKernel(1, (Tile(8), Tile(1)), (activation("silu"),)))
    check_assembly(BandKernel(4, (Tile(2, 1), Tile(2)), (ADD, activation("relu")), masked=True))
    check_assembly(BandKernel(8, (Tile(3), Tile(2, 2)), staged=True))


@pytest.mark.parametrize("isa, masked", [(AVX512, False), (AVX512, True), (AVX2, False), (NEON, False)],
                         ids=lambda value: getattr(value, "name", {False: "whole", True: "masked"}.get(value)))
def test_inner_loop_keeps_everything_in_registers(isa, masked):
    """The loop over columns: as many FMAs as sums, and no access to the stack."""
    assert isa.masks or not masked
    rows, vectors = isa.band[0], widest_tile(isa.band[0], isa)
    for singles in range(singles_beside(vectors, rows, isa) + 1):
        text = kernel_assembly(BandKernel(rows, (Tile(vectors, singles),), (activation("relu"),), masked), isa)
        loop, = inner_loops(text, "_tile")
        assert sum(bool(re.search(r"\bvfmadd|\bfmla", line)) for line in loop) == rows * vectors + singles
        assert not on_stack(loop), "the inner loop spills"
