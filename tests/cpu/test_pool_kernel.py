import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from kernel_harness import NATIVE, check_assembly, run_kernel
from maps import Value, layout_of, numbers, plane_layouts

from zellige.cpu.kernels.epilogue import ADD, activation
from zellige.cpu.kernels.pool import AVERAGE, LISTED, MAXIMUM, PoolKernel, Windows
from zellige.cpu.layout import Dense, planes
from zellige.cpu.tables.pool import adaptive_work, pool_work
from zellige.graph.reference import evaluate

ISAS = st.sampled_from(NATIVE)
OPERATORS = {MAXIMUM: "max_pool2d", AVERAGE: "average_pool2d"}


def pool(reduction, source, target_layout, form, work, isa, additions=(), epilogue=()):
    target = Value.blank(target_layout)
    slots = work.tables | {"source": source.slot, "target": target.slot}
    slots |= {f"operand{number}": value.slot for number, value in enumerate(additions)}
    run_kernel(PoolKernel(reduction, form, epilogue), slots, work.items, isa)
    target.check_row_margins()
    return target.view()


def source_of(data, special=False):
    """A map whose margins are full of NaN: pooling must never use them."""
    shape = tuple(data.draw(st.integers(1, limit)) for limit in (2, 3, 16, 80))
    value = Value(data.draw(plane_layouts(shape)))
    value.buffer = np.full(value.layout.elements, np.nan, np.float32)
    value.view()[...] = numbers(1, shape, special)
    return value


@st.composite
def windows(draw, height, width):
    """Kernel, stride, padding and dilation of which at least one window fits."""
    kernel, stride, dilation = (tuple(draw(st.integers(1, most)) for _ in range(2)) for most in (5, 4, 3))
    padding = []
    for axis, size in enumerate((height, width)):
        span = (kernel[axis] - 1) * dilation[axis] + 1
        before, after = draw(st.integers(0, 4)), draw(st.integers(0, 4))
        padding += [before, max(after, span - size - before)]
    return {"kernel": kernel, "stride": stride, "padding": tuple(padding), "dilation": dilation}


def result_shape(shape, window):
    (top, bottom, left, right), sizes = window["padding"], []
    for axis, room in enumerate((top + bottom, left + right)):
        span = (window["kernel"][axis] - 1) * window["dilation"][axis] + 1
        sizes.append((shape[2 + axis] + room - span) // window["stride"][axis] + 1)
    return (*shape[:2], *sizes)


def check(result, expected):
    np.testing.assert_allclose(result, expected.astype(np.float32), rtol=2e-6, atol=1e-6)


@given(st.data())
def test_max_pool_of_any_window(data):
    isa, source = data.draw(ISAS), source_of(data, special=True)
    window = data.draw(windows(*source.layout.shape[2:]))
    layout = layout_of(data.draw, result_shape(source.layout.shape, window))
    form, work = pool_work(source.layout, layout, **window, lanes=isa.lanes)
    check(pool(MAXIMUM, source, layout, form, work, isa), evaluate("max_pool2d", window, [source.view()]))


@given(st.data())
def test_average_pool_of_any_window(data):
    isa, source = data.draw(ISAS), source_of(data)
    window = data.draw(windows(*source.layout.shape[2:])) | {"dilation": (1, 1)}
    shape = result_shape(source.layout.shape, window)
    options = {"count_padding": tuple(data.draw(st.integers(0, most)) for most in window["padding"]),
               "divisor": data.draw(st.sampled_from((0, 0, 1, 7)))}
    layout = layout_of(data.draw, shape)
    form, work = pool_work(source.layout, layout, **window, **options, lanes=isa.lanes)
    attributes = {key: value for key, value in window.items() if key != "dilation"} | options
    check(pool(AVERAGE, source, layout, form, work, isa), evaluate("average_pool2d", attributes, [source.view()]))


@given(st.data())
def test_stride_one_between_planes_with_rows_of_one_length(data):
    """Vectors then run over margins and from one row into the next."""
    isa, source = data.draw(ISAS), source_of(data)
    window = data.draw(windows(*source.layout.shape[2:])) | {"stride": (1, 1)}
    shape = result_shape(source.layout.shape, window)
    assume(shape[3] <= source.layout.row)
    layout = planes(*shape, row=source.layout.row)
    form, work = pool_work(source.layout, layout, **window, lanes=isa.lanes)
    assert form.step == 1
    result = pool(MAXIMUM, source, layout, form, work, isa)
    check(result, evaluate("max_pool2d", window, [source.view()]))


@pytest.mark.parametrize("reduction", OPERATORS)
@given(data=st.data())
def test_adaptive_pools(reduction, data):
    isa, source = data.draw(ISAS), source_of(data, special=reduction == MAXIMUM)
    size = tuple(data.draw(st.integers(1, limit)) for limit in (8, 40))
    layout = layout_of(data.draw, (*source.layout.shape[:2], *size))
    form, work = adaptive_work(source.layout, layout, lanes=isa.lanes)
    operator = {MAXIMUM: "adaptive_max_pool2d", AVERAGE: "adaptive_average_pool2d"}[reduction]
    check(pool(reduction, source, layout, form, work, isa), evaluate(operator, {"size": size}, [source.view()]))


@given(st.data())
def test_epilogue_adds_planes_of_another_pitch(data):
    isa, source = data.draw(ISAS), source_of(data)
    window = {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1, 1, 1), "dilation": (1, 1)}
    layout = data.draw(plane_layouts(result_shape(source.layout.shape, window)))
    other = planes(*layout.shape, layout.margins, row=layout.row)
    addition = Value.of(other, numbers(3, layout.shape))
    form, work = pool_work(source.layout, layout, **window, additions=[other], lanes=isa.lanes)
    result = pool(MAXIMUM, source, layout, form, work, isa, [addition], (ADD, activation("relu")))
    check(result, np.maximum(evaluate("max_pool2d", window, [source.view()]) + addition.view(), 0))


@pytest.mark.parametrize("isa", NATIVE, ids=lambda isa: isa.name)
def test_the_pools_of_resnet_and_vgg(isa):
    for size, kernel, padding in ((112, 3, 1), (56, 2, 0), (35, 3, 0)):
        source = Value.of(planes(1, 3, size, size), numbers(size, (1, 3, size, size)))
        window = {"kernel": (kernel,) * 2, "stride": (2, 2), "padding": (padding,) * 4, "dilation": (1, 1)}
        layout = planes(*result_shape(source.layout.shape, window))
        form, work = pool_work(source.layout, layout, **window, lanes=isa.lanes)
        assert form.step == 2
        # Vectors in the middle go without masks.
        edges = work.tables["vectors"][:, 3]
        assert edges.mean() < (0.5 if padding else 0.01)
        check(pool(MAXIMUM, source, layout, form, work, isa), evaluate("max_pool2d", window, [source.view()]))


def test_operands_of_other_rows_are_refused():
    source, target = planes(1, 1, 8, 8), planes(1, 1, 4, 4)
    with pytest.raises(ValueError, match="rows"):
        pool_work(source, target, (2, 2), (2, 2), (0, 0, 0, 0), additions=[planes(1, 1, 4, 4, row=9)])


@pytest.mark.parametrize("isa", NATIVE, ids=lambda isa: isa.name)
def test_dense_target_of_one_pixel(isa):
    source = Value.of(planes(2, 3, 5, 5), numbers(0, (2, 3, 5, 5)))
    form, work = pool_work(source.layout, Dense((2, 3, 1, 1)), (5, 5), (1, 1), (0, 0, 0, 0), lanes=isa.lanes)
    result = pool(AVERAGE, source, Dense((2, 3, 1, 1)), form, work, isa)
    check(result, source.view().astype(np.float64).mean((2, 3), keepdims=True))


FORMS = [Windows(1), Windows(2), Windows(LISTED), *(Windows(step, (3, width)) for step in (1, 2) for width in (1, 2, 3))]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_assembly_for_every_instruction_set(form):
    for reduction in OPERATORS:
        check_assembly(PoolKernel(reduction, form, (ADD, activation("relu"))))
