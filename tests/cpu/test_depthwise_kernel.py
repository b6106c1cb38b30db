"""The depthwise kernel against a convolution in float64, over generated layers and layouts, with guards around every buffer."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_harness import NATIVE, check_assembly, kernel_assembly, run_kernel
from maps import Value, numbers

from zellige.cpu.isa import AVX512, NEON
from zellige.cpu.kernels.depthwise import STEPS, DepthwiseKernel
from zellige.cpu.kernels.epilogue import ADD, activation
from zellige.cpu.layout import Margins, planes
from zellige.cpu.tables.depthwise import MOST, MOST_WITHOUT_MASKS, depthwise_work
from zellige.graph.reference import evaluate

SIZES = [(3, 3), (5, 5), (1, 3), (3, 1), (2, 4)]


@given(data=st.data())
def test_any_depthwise_convolution(data):
    size, dilation = data.draw(st.sampled_from(SIZES)), data.draw(st.tuples(st.integers(1, 3), st.integers(1, 2)))
    stride = (data.draw(st.integers(1, 3)), data.draw(st.sampled_from(STEPS)))
    padding = tuple(data.draw(st.integers(0, 3)) for _ in range(4))
    images, channels, multiplier = (data.draw(st.integers(1, most)) for most in (3, 5, 3))
    reach = [(taps - 1) * step for taps, step in zip(size, dilation, strict=True)]
    height = data.draw(st.integers(max(1, reach[0] - padding[0] - padding[1] + 1), 14))
    width = data.draw(st.integers(max(1, reach[1] - padding[2] - padding[3] + 1), 45))
    isa = data.draw(st.sampled_from(NATIVE))
    epilogue = data.draw(st.sampled_from([(), (activation("relu"),), (ADD, activation("relu"))]))
    x, bias = numbers(1, (images, channels, height, width)), numbers(3, (channels * multiplier,))
    weight = numbers(4, (channels * multiplier, 1, *size))
    attributes = {"stride": stride, "padding": padding, "padding_mode": "zeros", "dilation": dilation, "groups": channels}
    expected = evaluate("conv2d", attributes, [x.astype(np.float64), weight.astype(np.float64), bias.astype(np.float64)])
    residual = numbers(2, expected.shape)
    for step in epilogue:
        expected = expected + residual if step == ADD else np.maximum(expected, 0)
    source_layout = planes(images, channels, height, width, Margins(*padding), row=width + data.draw(st.integers(0, 6)))
    row = source_layout.row if stride[1] == 1 and data.draw(st.booleans()) else 0
    target_layout = planes(*expected.shape, row=row)
    source, target, operand = Value.of(source_layout, x), Value.blank(target_layout), Value.of(target_layout, residual)
    origin = (padding[0], padding[2])
    tiles, work = depthwise_work(weight[:, 0], bias, source_layout, target_layout, stride, origin, dilation, isa,
                                 curved=data.draw(st.booleans()))
    slots = {"source": source.slot, "target": target.slot, **work.tables}
    if ADD in epilogue:
        slots |= {"operand0": operand.slot, "operand0_plane": target_layout.plane}
    run_kernel(DepthwiseKernel(size, dilation, stride, tiles, epilogue), slots, work.items, isa)
    target.check_row_margins()
    # at most 25 products and a few additions, each rounded by half a unit
    largest_product = float(np.abs(weight).max() * np.abs(x).max())
    np.testing.assert_allclose(target.view(), expected, rtol=1e-5, atol=30 * 2.0**-24 * largest_product + 1e-6)


def test_compiles_for_every_instruction_set():
    check_assembly(DepthwiseKernel((3, 3), (1, 1), (2, 2), (5, 4), (ADD, activation("relu6"))))
    check_assembly(DepthwiseKernel((5, 5), (1, 2), (1, 1), (4, 1), (activation("silu"),)))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("isa", [AVX512, NEON], ids=lambda isa: isa.name)
def test_rows_of_nine_taps_stay_in_registers(isa, step):
    """A tile has nine multiplications for each row and no vector on the stack; where masks are vectors, one may be there."""
    rows = MOST if isa.masks else MOST_WITHOUT_MASKS
    text = kernel_assembly(DepthwiseKernel((3, 3), (1, 1), (step, step), (rows,), (activation("relu"),)), isa)
    loops = [body for body in re.split(r"\n[.\w$]+:", text) if re.search(r"\bvfmadd|\bfmla|\bvmulps|\bfmul", body)]
    assert len(loops) == 1
    assert len(re.findall(r"\bvfmadd|\bfmla|\bvmulps|\bfmul", loops[0])) == rows * 9
    until_last_tap = loops[0][:[tap.end() for tap in re.finditer(r"\bvfmadd|\bfmla", loops[0])][-1]]
    stacked = [line for line in until_last_tap.splitlines() if re.search(r"%rsp|\[sp", line)]
    assert len([line for line in stacked if re.search(r"[xyz]mm|\bq\d", line)]) <= (not isa.masks), "the loop spills vectors"


def test_rows_are_shared_out_evenly():
    layout = planes(2, 3, 16, 20, Margins(1, 1, 1, 1))
    weight, bias = np.ones((3, 3, 3), np.float32), np.zeros(3, np.float32)
    tiles, work = depthwise_work(weight, bias, layout, layout, (1, 1), (1, 1), (1, 1), AVX512)
    assert tiles == (6, 5)
    assert work.tables["tiles"][:, -1].sum() == 2 * 16 * 2, "two vectors to each row of both images"
