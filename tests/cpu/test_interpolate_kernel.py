import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernel_harness import NATIVE, check_assembly, run_kernel
from maps import Value, layout_of, numbers

from zellige.cpu.kernels.interpolate import InterpolateKernel
from zellige.cpu.layout import Dense, Margins, planes
from zellige.cpu.tables.interpolate import interpolate_work
from zellige.graph.reference import evaluate

MODES = [("nearest", False), ("nearest_exact", False), ("bilinear", False), ("bilinear", True)]


def run(source, target_layout, mode, scale=(0.0, 0.0), align_corners=False, isa=NATIVE[0], guarded=False):
    """The result as an array, after checking what lies around it."""
    scratch, work = interpolate_work(source.layout, target_layout, mode, scale, align_corners, isa.lanes)
    target = Value.blank(target_layout)
    slots = work.tables | {"source": source.slot, "target": target.slot, "scratch": np.full(scratch, np.nan, np.float32)}
    external = ["scratch", "row_shares", "column_shares"] + ["source"] * guarded
    run_kernel(InterpolateKernel(mode == "bilinear"), slots, work.items, isa, external)
    target.check_row_margins()
    return target.view()


@st.composite
def problems(draw):
    """A source shape, and the height and width to resample it to, with the scales that name them or without."""
    shape = tuple(draw(st.integers(1, most)) for most in (2, 4, 12, 40))
    if draw(st.booleans()):
        scale = tuple(draw(st.sampled_from([0.5, 1.0, 1.3, 2.0, 2.5, 3.0])) for _ in range(2))
        size = tuple(max(1, int(length * factor)) for length, factor in zip(shape[2:], scale, strict=True))
        return shape, size, scale
    return shape, (draw(st.integers(1, 20)), draw(st.integers(1, 50))), (0.0, 0.0)


@pytest.mark.parametrize("mode, align_corners", MODES)
@given(data=st.data())
def test_any_size_to_any_other(mode, align_corners, data):
    shape, size, scale = data.draw(problems())
    isa, array = data.draw(st.sampled_from(NATIVE)), numbers(1, shape)
    attributes = {"mode": mode, "size": size, "scale": scale, "align_corners": align_corners}
    expected = evaluate("interpolate", attributes, [array])
    source = Value.of(layout_of(data.draw, shape), array)
    result = run(source, layout_of(data.draw, expected.shape), mode, scale, align_corners, isa)
    np.testing.assert_allclose(result, expected, rtol=0, atol=2e-6)
    if mode != "bilinear":
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("mode, align_corners", MODES)
@given(data=st.data())
def test_guarded_sources_are_read_no_further_than_their_pixels(mode, align_corners, data):
    shape, size, scale = data.draw(problems())
    array = numbers(2, shape)
    attributes = {"mode": mode, "size": size, "scale": scale, "align_corners": align_corners}
    expected = evaluate("interpolate", attributes, [array])
    result = run(Value.of(Dense(shape), array), layout_of(data.draw, expected.shape), mode, scale, align_corners, guarded=True)
    np.testing.assert_allclose(result, expected, rtol=0, atol=2e-6)


def pytorch(array, size, mode, align_corners):
    options = {"align_corners": align_corners} if mode == "bilinear" else {}
    return torch.nn.functional.interpolate(torch.from_numpy(array), size=size, mode=mode.replace("_", "-"), **options).numpy()


@pytest.mark.parametrize("mode, align_corners", MODES)
@pytest.mark.parametrize("shape, size", [((1, 3, 7, 9), (14, 18)), ((2, 2, 28, 28), (100, 57)), ((1, 4, 1, 1), (8, 20)),
                                         ((1, 2, 33, 33), (5, 6)), ((1, 2, 13, 17), (1, 1))])
def test_as_pytorch(shape, size, mode, align_corners):
    """Sizes of segmentation heads and pyramids."""
    array = numbers(3, shape)
    expected = pytorch(array, size, mode, align_corners)
    source, target = (planes(*each, Margins(1, 1, 1, 1)) if each[2] > 1 else Dense(each) for each in (shape, expected.shape))
    result = run(Value.of(source, array), target, mode, align_corners=align_corners)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode, align_corners, size", [("nearest", False, (10, 18)), ("bilinear", False, (10, 18)),
                                                       ("bilinear", True, (9, 17))])
def test_numbers_that_are_not_finite_spread_as_in_pytorch(mode, align_corners, size):
    array = numbers(4, (1, 2, 5, 9))
    array[0, 0, 0, 0], array[0, 0, 2, 5], array[0, 1, 3, 8] = np.nan, np.inf, -np.inf
    result = run(Value.of(planes(*array.shape), array), planes(1, 2, *size), mode, align_corners=align_corners)
    np.testing.assert_allclose(result, pytorch(array, size, mode, align_corners), rtol=0, atol=1e-6)


def test_growing_maps_resample_every_source_row_once():
    """Each part of a plane begins anew; planes are split where there are few."""
    for channels, parts in ((32, 1), (4, 4)):
        _, work = interpolate_work(planes(1, channels, 28, 28), planes(1, channels, 56, 56), "bilinear")
        assert work.items == channels * parts
        assert 28 <= len(work.tables["fills"]) <= 28 + 2 * (parts - 1)


def test_assembly_for_every_instruction_set():
    for bilinear in (False, True):
        check_assembly(InterpolateKernel(bilinear))
