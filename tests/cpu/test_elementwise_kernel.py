import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_harness import NATIVE, check_assembly, run_kernel
from maps import Value, layout_of, numbers

from zellige.cpu.kernels.elementwise import FULL, GUARDED, SCALAR, ElementwiseKernel
from zellige.cpu.kernels.epilogue import ADD, activation
from zellige.cpu.layout import Dense, Margins, planes
from zellige.cpu.tables.elementwise import elementwise_work

ORACLES = {
    "identity": lambda x: x,
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "scale_shift": lambda x, scale, shift: x * scale + shift,
    "prelu": lambda x, slope: np.where(x > 0, x, slope * x),
    "where_greater": lambda left, right, x, y: np.where(left > right, x, y),
    "where_greater_equal": lambda left, right, x, y: np.where(left >= right, x, y),
    "where_equal": lambda left, right, x, y: np.where(left == right, x, y),
    "where_not_equal": lambda left, right, x, y: np.where(left != right, x, y),
}
ARITY = {name: 4 if name.startswith("where") else {"identity": 1, "scale_shift": 3}.get(name, 2) for name in ORACLES}
SLOTS = ("first", "second", "third", "fourth")


def run(operation, target_layout, operands, additions=(), epilogue=(), isa=NATIVE[0], guarded=()):
    """The result as an array, after checking what lies around it."""
    layouts = [[value.layout for value in values] for values in (operands, additions)]
    kinds, work = elementwise_work(target_layout, *layouts, isa.lanes, guarded)
    kernel = ElementwiseKernel(operation, kinds, epilogue)
    target = Value.blank(target_layout)
    slots = work.tables | {"target": target.slot}
    slots |= {SLOTS[number]: value.slot for number, value in enumerate(operands)}
    slots |= {f"operand{number}": value.slot for number, value in enumerate(additions)}
    run_kernel(kernel, slots, work.items, isa, external=[SLOTS[number] for number in guarded])
    target.check_row_margins()
    return target.view(), kinds


def reference(operation, arrays):
    with np.errstate(all="ignore"), warnings.catch_warnings():
        return ORACLES[operation](*(array.astype(np.float64) for array in arrays)).astype(np.float32)


@st.composite
def broadcasts(draw, count):
    """Shapes that broadcast together, and the shape they give."""
    rank = draw(st.integers(0, 5))
    shape = tuple(draw(st.integers(1, 4)) for _ in range(rank))
    if rank and draw(st.booleans()):
        shape = (*shape[:-1], draw(st.integers(1, 70)))
    operands = [tuple(size if draw(st.booleans()) else 1 for size in shape) for _ in range(count)]
    operands = [one[draw(st.integers(0, rank)):] if draw(st.booleans()) else one for one in operands]
    return operands, np.broadcast_shapes(*operands)


@pytest.mark.parametrize("operation", ORACLES)
@given(data=st.data())
def test_broadcasting_of_any_shapes(operation, data):
    shapes, shape = data.draw(broadcasts(ARITY[operation]))
    isa = data.draw(st.sampled_from(NATIVE))
    arrays = [numbers(seed, each, special=True) for seed, each in enumerate(shapes)]
    operands = [Value.of(layout_of(data.draw, each), array) for each, array in zip(shapes, arrays, strict=True)]
    result, _ = run(operation, layout_of(data.draw, shape), operands, isa=isa)
    np.testing.assert_allclose(result, reference(operation, arrays), rtol=3e-7, atol=2e-7)


@given(data=st.data())
def test_epilogue_adds_values_of_other_layouts(data):
    shape = tuple(data.draw(st.integers(1, limit)) for limit in (2, 4, 9, 40))
    arrays = [numbers(seed, shape) for seed in range(4)]
    values = [Value.of(layout_of(data.draw, shape), array) for array in arrays]
    epilogue = (ADD, activation("relu"), ADD)
    result, _ = run("multiply", layout_of(data.draw, shape), values[:2], values[2:], epilogue)
    expected = np.maximum(arrays[0].astype(np.float64) * arrays[1] + arrays[2], 0) + arrays[3]
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)


@given(data=st.data())
def test_guarded_operands_are_read_no_further_than_their_pixels(data):
    shape = tuple(data.draw(st.integers(1, limit)) for limit in (2, 3, 5, 40))
    arrays = [numbers(seed, shape) for seed in range(2)]
    values = [Value.of(Dense(shape), array) for array in arrays]
    isa = data.draw(st.sampled_from(NATIVE))
    result, _ = run("add", layout_of(data.draw, shape), values, isa=isa, guarded=(0, 1))
    np.testing.assert_array_equal(result, arrays[0] + arrays[1])


def test_kinds_that_broadcasting_takes():
    """A gate per channel is scalar on whole planes; only what changes along a row costs an item per row."""
    layout = planes(2, 3, 8, 20, Margins(1, 1, 1, 1))
    gate, column, image = Dense((2, 3, 1, 1)), Dense((8, 1)), planes(1, 1, 8, 20)
    for other, kind, items in ((gate, SCALAR, 6), (column, SCALAR, 48), (image, FULL, 6), (Dense(()), SCALAR, 6)):
        kinds, work = elementwise_work(layout, [layout, other])
        assert kinds == (FULL, kind)
        assert work.items == items


def test_assembly_for_every_instruction_set():
    for operation, arity in ARITY.items():
        check_assembly(ElementwiseKernel(operation, (FULL, SCALAR, SCALAR, FULL)[:arity], (ADD, activation("relu"))))
        check_assembly(ElementwiseKernel(operation, (GUARDED,) * arity))
