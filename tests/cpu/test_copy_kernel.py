from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from kernel_harness import NATIVE, check_assembly, run_kernel
from maps import Value, layout_of, numbers, plane_layouts

from zellige.cpu.kernels.copy import CopyKernel, FillKernel
from zellige.cpu.layout import Dense, Planes
from zellige.cpu.tables import relayout, windows

ISAS = st.sampled_from(NATIVE)
MODES = ("zeros", "reflect", "replicate", "circular")
PAD = {"zeros": "constant", "constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def copy(source, target_layout, work, isa):
    """The copied values; the source and dense targets are external memory, without slack."""
    target = Value.blank(target_layout)
    external = ["source"] if isinstance(target_layout, Planes) else ["source", "target"]
    slots = work.tables | {"source": source.slot, "target": target.slot}
    run_kernel(CopyKernel(), slots, work.items, isa, external)
    target.check_row_margins()
    return target.view()


def value(data, shape, dense=None):
    dense = data.draw(st.booleans()) if dense is None else dense
    return Value.of(Dense(shape) if dense else layout_of(data.draw, shape), numbers(1, shape))


def shape4(data, most=(3, 4, 9, 40)):
    return tuple(data.draw(st.integers(1, limit)) for limit in most)


def pads(data, mode, height, width):
    """Four numbers that torch would accept."""
    limits = {"reflect": (height - 1, width - 1), "circular": (height, width)}.get(mode, (5, 5))
    return tuple(data.draw(st.integers(0, min(5, limits[axis // 2]))) for axis in range(4))


@given(st.data())
def test_stage_writes_padding_and_phases(data):
    isa, shape = data.draw(ISAS), shape4(data, (2, 3, 9, 70))
    source = value(data, shape)
    mode, stride = data.draw(st.sampled_from(MODES)), tuple(data.draw(st.integers(1, 3)) for _ in range(2))
    padding = pads(data, mode, *shape[2:])
    top, bottom, left, right = padding
    padded = np.pad(source.view(), ((0, 0), (0, 0), (top, bottom), (left, right)), PAD[mode])
    # Phase planes may be larger than what is left of the padded source: zeros follow.
    height, width = (-(-padded.shape[2 + axis] // stride[axis]) + data.draw(st.integers(0, 2)) for axis in range(2))
    stage = windows.Stage(stride, tuple(range(stride[0])), tuple(range(stride[1])))
    layout = data.draw(plane_layouts((shape[0], shape[1] * stage.planes, height, width)))
    result = copy(source, layout, windows.stage_work(source.layout, layout, stage, padding, mode, isa.lanes), isa)
    room = np.zeros((*shape[:2], height * stride[0], width * stride[1]), np.float32)
    room[:, :, :padded.shape[2], :padded.shape[3]] = padded
    phases = [room[:, :, py::stride[0], px::stride[1]] for py in range(stride[0]) for px in range(stride[1])]
    np.testing.assert_array_equal(result, np.stack(phases, 2).reshape(layout.shape))


@given(st.data())
def test_pad_in_every_mode_and_crop(data):
    isa, shape = data.draw(ISAS), shape4(data)
    source = value(data, shape)
    mode = data.draw(st.sampled_from((*MODES, "constant")))
    padding = pads(data, mode, *shape[2:])
    number = data.draw(st.floats(-4, 4, width=32)) if mode == "constant" else 0.0
    options = {"constant_values": number} if mode in ("constant", "zeros") else {}
    top, bottom, left, right = padding
    expected = np.pad(source.view(), ((0, 0), (0, 0), (top, bottom), (left, right)), PAD[mode], **options)
    crop = [data.draw(st.integers(0, (size - 1) // 2)) for size in expected.shape[2:] for _ in range(2)]
    if data.draw(st.booleans()):
        expected = expected[:, :, crop[0]:expected.shape[2] - crop[1], crop[2]:expected.shape[3] - crop[3]]
        padding = tuple(np.subtract(padding, crop).tolist())
        if mode not in ("zeros", "constant") and min(padding) < 0:
            return
    layout = layout_of(data.draw, expected.shape)
    result = copy(source, layout, windows.pad_work(source.layout, layout, padding, mode, number, isa.lanes), isa)
    np.testing.assert_array_equal(result, expected)


@given(st.data())
def test_copy_between_layouts(data):
    isa = data.draw(ISAS)
    shape = shape4(data) if data.draw(st.booleans()) else tuple(data.draw(st.lists(st.integers(1, 9), max_size=6)))
    source = value(data, shape)
    layout = Dense(shape) if data.draw(st.booleans()) else layout_of(data.draw, shape)
    result = copy(source, layout, relayout.copy_work(source.layout, layout, isa.lanes), isa)
    np.testing.assert_array_equal(result, source.view())


@given(st.data())
def test_transpose(data):
    isa = data.draw(ISAS)
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=6)))
    order = data.draw(st.permutations(range(len(shape))))
    source = value(data, shape)
    layout = layout_of(data.draw, tuple(shape[axis] for axis in order))
    result = copy(source, layout, relayout.transpose_work(source.layout, layout, order, isa.lanes), isa)
    np.testing.assert_array_equal(result, source.view().transpose(order))


@given(st.data())
def test_slice_with_any_step(data):
    isa = data.draw(ISAS)
    shape = tuple(data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=4)))
    source = value(data, shape)
    dimension = data.draw(st.integers(0, len(shape) - 1))
    start = data.draw(st.integers(0, shape[dimension] - 1))
    stop, step = data.draw(st.integers(start + 1, shape[dimension])), data.draw(st.integers(1, 4))
    expected = source.view()[(slice(None),) * dimension + (slice(start, stop, step),)]
    layout = layout_of(data.draw, expected.shape)
    work = relayout.slice_work(source.layout, layout, dimension, start, step, isa.lanes)
    np.testing.assert_array_equal(copy(source, layout, work, isa), expected)


@given(st.data())
def test_concat_part_by_part(data):
    isa = data.draw(ISAS)
    shape = list(data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=4)))
    dimension = data.draw(st.integers(0, len(shape) - 1))
    parts = [value(data, (*shape[:dimension], size, *shape[dimension + 1:]))
             for size in data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=3))]
    expected = np.concatenate([part.view() for part in parts], dimension)
    target, position = Value.blank(layout_of(data.draw, expected.shape)), 0
    for part in parts:
        work = relayout.concat_work(part.layout, target.layout, dimension, position, isa.lanes)
        run_kernel(CopyKernel(), work.tables | {"source": part.slot, "target": target.slot}, work.items, isa, ["source"])
        position += part.layout.shape[dimension]
    target.check_row_margins()
    np.testing.assert_array_equal(target.view(), expected)


@given(st.data())
def test_channel_shuffle(data):
    isa, (images, each, height, width) = data.draw(ISAS), shape4(data)
    groups = data.draw(st.integers(1, 4))
    source = value(data, (images, each * groups, height, width))
    layout = layout_of(data.draw, source.layout.shape)
    expected = source.view().reshape(images, groups, each, height, width).swapaxes(1, 2).reshape(layout.shape)
    work = relayout.shuffle_work(source.layout, layout, groups, isa.lanes)
    np.testing.assert_array_equal(copy(source, layout, work, isa), expected)


@given(st.data())
def test_reshape_with_and_without_common_sizes(data):
    isa = data.draw(ISAS)
    factors = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))

    def grouped():
        shape = list(data.draw(st.permutations(factors)))
        while len(shape) > 1 and data.draw(st.booleans()):
            joined = data.draw(st.integers(0, len(shape) - 2))
            shape[joined:joined + 2] = [shape[joined] * shape[joined + 1]]
        return tuple(shape)

    source = value(data, grouped())
    layout = layout_of(data.draw, grouped())
    result = copy(source, layout, relayout.reshape_work(source.layout, layout, isa.lanes), isa)
    np.testing.assert_array_equal(result, source.view().reshape(layout.shape))


@given(plane_layouts(), ISAS)
def test_fill_clears_what_lies_between_images(layout, isa):
    target = Value.blank(layout)
    work = windows.fill_work(layout)
    run_kernel(FillKernel(), work.tables | {"target": target.slot}, work.items, isa)
    row_view = Value(replace(layout, width=layout.row), target.buffer).view()
    assert (row_view == 7).all(), "fill touched rows"
    row_view[...] = 0
    assert not target.buffer.any(), "fill left something between images"


def test_assembly_for_every_instruction_set():
    check_assembly(CopyKernel())
    check_assembly(FillKernel())
