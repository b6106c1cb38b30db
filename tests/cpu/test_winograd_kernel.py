"""The Winograd kernels against a convolution in float64, over generated layers and layouts, with guards around every buffer."""

from __future__ import annotations

import operator
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_harness import NATIVE, check_assembly, kernel_assembly, native, run_kernel
from maps import Value, numbers, plane_layouts
from maps import margins as margins_of_any_size

from zellige.cpu.calls import Scratch
from zellige.cpu.isa import AVX2, AVX512, NEON
from zellige.cpu.kernels.epilogue import ADD, Epilogue, activation
from zellige.cpu.kernels.winograd import WinogradGroup, WinogradStrip
from zellige.cpu.kernels.winograd_pieces import UNROLL, strip_kinds
from zellige.cpu.kernels.winograd_points import LARGE, SMALL, TAPS, Transform
from zellige.cpu.kernels.winograd_runs import Tiling
from zellige.cpu.layout import LINE, Margins, Planes, planes
from zellige.cpu.lower.winograd import WinogradPlan
from zellige.cpu.tables.parts import cut_parts
from zellige.cpu.tables.winograd import cut_runs, cut_strips
from zellige.graph.reference import evaluate

RELU = activation("relu")
TRANSFORMS = pytest.mark.parametrize("transform", [LARGE, SMALL], ids=str)
ERROR = 1e-5  # of the largest output, as it may be where outputs cancel; layers of 512 channels are off by 2e-6


def sparse_weight(seed: int, cout: int, cin: int, density: float, block: tuple[int, int]) -> np.ndarray:
    random = np.random.default_rng(seed)
    mask = np.kron(random.random((-(-cout // block[0]), -(-cin // block[1]))) < density, np.ones(block, bool))
    return (random.standard_normal((cout, cin, 3, 3)) * mask[:cout, :cin, None, None]).astype(np.float32)


def surrounded_by_nan(layout: Planes, array: np.ndarray, padding: tuple[int, int, int, int]) -> Value:
    """A source of which only the map may be read, and the padding that its margins hold."""
    here = layout.margins
    top, bottom, left, right = (pad if pad <= margin else 0 for pad, margin in
                                zip(padding, (here.top, here.bottom, here.left, here.right), strict=True))
    value = Value(layout, np.full(layout.elements, np.nan, np.float32))
    for channel in range(layout.channels):
        for image in range(layout.images):
            first = layout.head + channel * layout.plane + image * layout.image
            for y in range(-top, layout.height + bottom):
                value.buffer[first + y * layout.row - left:first + y * layout.row + layout.width + right] = 0.0
    value.view()[...] = array
    return value


def run_layer(plan: WinogradPlan, values: dict[str, object]) -> None:
    """A layer's call, on guarded memory."""
    call = plan.call
    slots = {name: np.full(slot.elements, np.nan, np.float32) if isinstance(slot, Scratch) else slot
             for name, slot in call.slots.items()}
    run_kernel(call.kernel, slots | values, len(call.costs), plan.isa)


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
    margins = Margins(*padding) if data.draw(st.booleans()) else data.draw(margins_of_any_size(1))
    source_layout = planes(images, cin, height, width, margins, row=width + data.draw(st.integers(0, 5)))
    shape = (images, cout, height + padding[0] + padding[1] - 2, width + padding[2] + padding[3] - 2)
    pooled = ADD not in epilogue and min(shape[2:]) > 1 and data.draw(st.booleans())
    target_layout = data.draw(plane_layouts((*shape[:2], shape[2] // 2, shape[3] // 2) if pooled else shape))
    residual = numbers(3, shape)
    expected = expected_output(x, weight, bias, padding, epilogue, residual)
    operands = {} if pooled else {"operand0": Value.of(target_layout, residual).slot, "operand0_plane": target_layout.plane}
    largest = abs(expected).max(initial=1e-30)
    expected = evaluate("max_pool2d", {"kernel": (2, 2), "stride": (2, 2)}, [expected]) if pooled else expected
    transform = data.draw(st.sampled_from([LARGE, SMALL]))
    runs = {"narrow_vectors": data.draw(st.sampled_from([0.0, 2.0]))}
    runs |= {"group_bands": 2}
    for limits in ({"many_strips": 1} | runs, {"many_strips": 99, "part_vectors": (1, 2)} | runs):
        plan = WinogradPlan(isa, weight, bias, source_layout, target_layout, padding, epilogue, pooled, transform, **limits)
        source, target = surrounded_by_nan(source_layout, x, padding), Value.blank(target_layout)
        run_layer(plan, {"source": source.slot, "target": target.slot, **operands})
        target.check_row_margins()
        assert abs(target.view() - expected).max() <= ERROR * largest


def layer_of(cin: int, cout: int, side: int, isa=NATIVE[0], density: float = 0.5, **options) -> tuple[WinogradPlan, np.ndarray]:
    """A layer of a square map with padding 1, and its source."""
    weight = sparse_weight(7, cout, cin, density, (8, 8)) / np.float32(cin**0.5)
    layout = planes(1, cin, side, side, Margins(1, 1, 1, 1))
    plan = WinogradPlan(isa, weight, numbers(2, (cout,)), layout, planes(1, cout, side, side), (1, 1, 1, 1), **options)
    return plan, numbers(1, (1, cin, side, side))


@pytest.mark.parametrize(("transform", "most"), [(LARGE, 4e-6), (SMALL, 1e-6)], ids=str)
@pytest.mark.parametrize("limits", [{}, {"many_strips": 1}], ids=["groups", "strips"])
def test_error_stays_small_with_many_channels(limits, transform, most):
    plan, x = layer_of(512, 16, 14, density=1.0, transform=transform, **limits)
    source, target = Value.of(plan.source, x), Value.blank(plan.target)
    run_layer(plan, {"source": source.slot, "target": target.slot})
    expected = expected_output(x, plan.weight, plan.bias, plan.padding, (), None)
    assert abs(target.view() - expected).max() <= most * abs(expected).max()


@TRANSFORMS
@pytest.mark.parametrize("limits", [{"many_strips": 1}, {"group_bands": 1, "part_vectors": (1, 1)}], ids=["strips", "groups"])
def test_channels_that_are_not_kept_are_never_touched(limits, transform):
    plan, x = layer_of(24, 16, 9, transform=transform, **limits)
    plan.weight[:, 8:16] = 0.0
    plan = replace(plan)
    expected = expected_output(x, plan.weight, plan.bias, plan.padding, (), None)
    x[:, 8:16] = np.nan
    source, target = Value.of(plan.source, x), Value.blank(plan.target)
    run_layer(plan, {"source": source.slot, "target": target.slot})
    assert abs(target.view() - expected).max() <= ERROR * abs(expected).max()


@TRANSFORMS
def test_pooling_keeps_nan(transform):
    """As PyTorch's: a window with a NaN is NaN, wherever it stands."""
    plan, x = layer_of(8, 8, 22, density=1.0, transform=transform)
    target = planes(1, 8, 11, 11)
    for place in (0, 1):
        x[0, 3, 9 + place, 12 - place] = np.nan
        pooled = replace(plan, target=target, epilogue=(RELU,), pooled=True)
        result = Value.blank(target)
        run_layer(pooled, {"source": Value.of(plan.source, x).slot, "target": result.slot})
        expected = expected_output(x, plan.weight, plan.bias, plan.padding, (RELU,), None)
        lost = np.isnan(evaluate("max_pool2d", {"kernel": (2, 2), "stride": (2, 2)}, [expected]))
        assert lost.any() and np.isnan(result.view()[lost]).all()
        assert not np.isnan(result.view()).all()


@TRANSFORMS
@pytest.mark.parametrize("limits", [{"many_strips": 1}, {"many_strips": 99}], ids=["strips", "groups"])
def test_any_split_of_the_items_gives_the_same_bits(limits, transform):
    """Items in any order, by threads of any number, make what one thread makes in one go."""
    plan, x = layer_of(24, 40, 44, transform=transform, **limits)
    call, results = plan.call, []
    function, _ = native(call.kernel, plan.isa)
    assert len(call.costs) > 2
    for threads in (1, 3):
        memory = {"source": Value.of(plan.source, x).buffer, "target": Value.blank(plan.target).buffer}
        slots = np.zeros(len(call.kernel.SLOTS), np.int64)
        arrays = {**call.slots, **memory}
        for position, name in enumerate(call.kernel.SLOTS):
            slot = arrays.get(name, 0)
            if isinstance(slot, Scratch):
                slot = arrays[name] = aligned(threads * slot.elements)
            head = 4 * getattr(plan, name).head if name in ("source", "target") else 0
            slots[position] = slot.ctypes.data + head if isinstance(slot, np.ndarray) else slot
        if threads == 1:
            function(slots.ctypes.data, 0, len(call.costs), 0)
        else:
            for item in np.random.default_rng(0).permutation(len(call.costs)):
                function(slots.ctypes.data, int(item), int(item) + 1, int(item) % threads)
        results.append(memory["target"])
    np.testing.assert_array_equal(*results)


def aligned(elements: int) -> np.ndarray:
    """Memory that begins on a cache line, full of NaN: whoever reads it before writing it is found out."""
    memory = np.full(elements + LINE, np.nan, np.float32)
    skip = -memory.ctypes.data // memory.itemsize % LINE
    return memory[skip:skip + elements]


def test_items_cost_what_the_plan_costs_and_sparsity_pays():
    dense, half = (layer_of(64, 64, 56, density=density)[0] for density in (1.0, 0.5))
    for plan in (dense, half):
        assert len(plan.call.costs) == len(plan.costs) and (plan.costs > 0).all()
    assert half.cycles < 0.7 * dense.cycles
    by_strips = layer_of(64, 64, 56, many_strips=1)[0]
    assert by_strips.by_strips and by_strips.cycles < half.cycles < 1.3 * by_strips.cycles


@pytest.mark.parametrize("shape, tile, together, share", [
    ((1, 28, 28), 4, 4, 2), ((1, 7, 7), 4, 4, 2), ((1, 7, 7), 4, 8, 4), ((1, 56, 56), 4, 8, 4), ((1, 14, 14), 4, 4, 1),
    ((3, 4, 16), 4, 4, 1), ((5, 4, 16), 4, 4, 4), ((1, 7, 7), 2, 4, 1), ((1, 8, 8), 2, 2, 1), ((1, 4, 4), 2, 4, 2),
    ((1, 6, 16), 2, 2, 2), ((1, 10, 10), 2, 4, 2), ((3, 2, 8), 2, 4, 1)], ids=str)
def test_few_runs_share_the_last_vector(shape, tile, together, share):
    runs = cut_runs(*shape, lanes=16, tiling=Tiling(tile, together))
    order, once = runs.in_vectors()
    assert runs.share == share
    assert sorted(order[once]) == list(range(len(runs)))
    parts = order[-1].reshape(-1, share, together // tile)
    assert (parts == parts[:, :1]).all()
    for ranges in (np.array([[0, runs.vectors]]), cut_parts(runs.vectors, 1, 2)):
        strips = np.concatenate(cut_strips(ranges, share, 3))
        assert strips[:, 1].sum() == runs.vectors and (strips[1:, 0] == strips[:-1, :2].sum(1)).all()


def test_maps_are_cut_where_threads_part():
    """Two threads have a half of the vectors each, where there are enough of them; of a single one, half of the groups."""
    for side, vectors in ((56, [3, 3, 4, 3]), (28, [2, 2]), (14, [1])):
        plan, _ = layer_of(64, 64, side, isa=AVX512)
        assert [int(part[:, 1].sum()) for part in plan.parts] == vectors
        first, _, group = plan.group_items.T
        assert (np.diff(first) >= 0).all() and (group == np.tile(np.arange(len(plan.groups)), len(vectors))).all()


@pytest.mark.parametrize("side", [7, 8])
def test_small_tiles_of_the_smallest_maps_fill_a_vector(side):
    plan, _ = layer_of(8, 8, side, isa=AVX512, transform=SMALL)
    assert (plan.runs.vectors, plan.runs.share) == (1, 1)
    assert plan.cycles < layer_of(8, 8, side, isa=AVX512)[0].cycles


@TRANSFORMS
def test_few_tiles_are_still_enough_items_for_many_threads(transform):
    for cin, side in ((512, 14), (256, 14), (128, 28), (512, 7)):
        plan, _ = layer_of(cin, cin, side, isa=AVX512, transform=transform, many_strips=99)
        assert len(plan.costs) >= 4 and plan.costs.max() <= 0.3 * plan.costs.sum()


@TRANSFORMS
def test_transforms_make_a_convolution(transform: Transform):
    """In one dimension: a window's pixels and 3 taps to a tile's outputs, through a product a point, for every pixel and tap on its
    own."""
    for pixel in range(transform.window):
        points = transformed(transform.to_points, np.eye(transform.window)[pixel])
        for tap in range(TAPS):
            outputs = transformed(transform.from_points, points * transform.filters[:, tap])
            assert outputs == pytest.approx(1.0 * (np.arange(transform.tile) + tap == pixel), abs=1e-14)
    for tap in range(TAPS if transform.filter_to_points else 0):
        assert transformed(transform.filter_to_points, np.eye(TAPS)[tap]) == pytest.approx(transform.filters[:, tap], abs=1e-14)


def transformed(side, values: np.ndarray) -> np.ndarray:
    """What the code of one side of a transform computes, in double precision."""
    return np.array(side(Numbers(), list(values)))


class Numbers:
    """Stands in for an emitter: computes at once."""

    splat = staticmethod(float)
    fadd, fsub, fmul, fneg = (staticmethod(function) for function in (operator.add, operator.sub, operator.mul, operator.neg))

    @staticmethod
    def multiply_add(x: float, y: float, z: float) -> float:
        return x * y + z


def test_shapes_that_do_not_fit_are_refused():
    plan, _ = layer_of(8, 8, 6)
    with pytest.raises(ValueError, match="make"):
        WinogradPlan(plan.isa, plan.weight, plan.bias, plan.source, plan.target, (0, 0, 0, 0))
    with pytest.raises(ValueError, match="make"):
        WinogradPlan(plan.isa, plan.weight[:, :4], plan.bias, plan.source, plan.target, plan.padding)


KERNELS = [kernel for tiling in (Tiling(4, 4), Tiling(2, 2), Tiling(2, 4)) for kernel in (
    WinogradStrip(8, 3, tiling, (ADD, RELU)), WinogradGroup(8, 3, tiling),
    WinogradStrip(8, 3, tiling, (RELU,), pooled=True))]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: f"{type(kernel).__name__}-{kernel.tiling.tile}-{kernel.tiling.runs}")
def test_compiles_for_every_instruction_set(kernel):
    check_assembly(kernel)


@pytest.mark.parametrize("isa", [AVX512, AVX2, NEON], ids=lambda isa: isa.name)
@pytest.mark.parametrize("tile", [4, 2])
@pytest.mark.parametrize("family", [WinogradStrip, WinogradGroup], ids=lambda family: family.__name__)
def test_products_keep_everything_in_registers(isa, tile, family):
    """The loop over a band's columns, for every kind of strips: as many FMAs as sums and columns a turn, and no access to the
    stack."""
    rows, vectors = isa.band
    text = kernel_assembly(family(rows, vectors, Tiling(tile, tile)), isa)
    for width, share in strip_kinds(vectors, tile).values():
        body = re.search(rf"_products{width}x{share}:(.*?)\.Lfunc_end", text, re.DOTALL).group(1)
        loops = [part for part in re.split(r"\n\.L\w+:", body) if re.search(r"\bvfmadd|\bfmla", part)]
        assert len(loops) == 1
        loop = loops[0][:loops[0].rindex("\tj" if isa is not NEON else "\tb.")]
        assert len(re.findall(r"\bvfmadd|\bfmla", loop)) == UNROLL * rows // share * width
        assert not re.search(r"\(%r[sb]p|\[sp|\[x29", loop), "the inner loop spills"
