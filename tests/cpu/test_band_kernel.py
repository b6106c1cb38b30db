"""The band kernel against a convolution in float64, over generated layers and layouts, with guards around every buffer."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_harness import NATIVE, check_assembly, kernel_assembly, run_kernel
from maps import Value, numbers

from zellige.cpu.isa import AVX2, AVX512, NEON
from zellige.cpu.kernels.band import BandKernel
from zellige.cpu.kernels.epilogue import ADD, activation
from zellige.cpu.layout import Margins, planes
from zellige.cpu.tables.band import Taps, band_rows, band_work, widest_tile
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
    source_layout = planes(images, inputs, height, width, Margins(*padding), row=width + data.draw(st.integers(0, 6)))
    same_row = data.draw(st.booleans())
    target_layout = planes(*expected.shape, row=source_layout.row if same_row else 0)
    source, target = Value.of(source_layout, x), Value.blank(target_layout)
    operand = Value.of(target_layout, residual)
    rows = band_rows(outputs, groups, isa)
    bands = band_columns(weight, groups, rows)
    widths, work = band_work(bands, bias, Taps(kernel, dilation, (padding[0], padding[2])), source_layout, target_layout, rows, isa)
    slots = {"source": source.slot, "target": target.slot, **work.tables}
    if ADD in epilogue:
        slots |= {"operand0": operand.slot, "operand0_plane": target_layout.plane}
    run_kernel(BandKernel(rows, widths, epilogue), slots, work.items, isa)
    target.check_row_margins()
    np.testing.assert_allclose(target.view(), expected, rtol=1e-5, atol=tolerance(weight, x))


def test_compiles_for_every_instruction_set():
    check_assembly(BandKernel(8, (3, 2), (ADD, activation("relu"))))
    check_assembly(BandKernel(1, (8, 1), (activation("silu"),)))


@pytest.mark.parametrize("isa", [AVX512, AVX2, NEON], ids=lambda isa: isa.name)
def test_inner_loop_keeps_everything_in_registers(isa):
    """The loop over columns: as many FMAs as sums, and no access to the stack."""
    rows, vectors = isa.band[0], widest_tile(isa.band[0], isa)
    text = kernel_assembly(BandKernel(rows, (vectors,), (activation("relu"),)), isa)
    fma = r"\bvfmadd|\bfmla"
    loops = [body for body in re.split(r"\n[.\w$]+:", text) if len(re.findall(fma, body)) >= rows * vectors]
    assert len(loops) == 1
    after_last = [match.end() for match in re.finditer(fma, loops[0])][rows * vectors - 1]
    back = re.compile(r"\n\s+(j[a-z]+|b\.[a-z]+)\s").search(loops[0], after_last)
    assert back, "the loop does not end with a jump"
    body = loops[0][:back.start()]
    assert len(re.findall(fma, body)) == rows * vectors
    assert not re.search(r"\(%rsp|\(%rbp|\[sp|\[x29", body), "the inner loop spills"
