"""Convolutions, pools, paddings and resizes of any shape equal PyTorch's."""

import torch
import torch.nn.functional as F
from against_torch import Abreast, Calls, assert_equal_to_torch, few, random
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from zellige.graph.from_torch import from_torch

sizes = st.integers(5, 11)
steps = st.integers(1, 3)


@st.composite
def convolutions(draw):
    """A convolution and the shape of a map for it."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    inputs, outputs = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]))
    padding = draw(st.sampled_from(["same", "valid", (0, 1), (2, 0), (3, 3)]))
    stride = (1, 1) if padding == "same" else (draw(steps), draw(steps))
    batch = draw(st.sampled_from([(), (1,), (2,)]))
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, draw(st.booleans()), mode)
    return conv, (*batch, inputs, draw(st.integers(7, 11)), draw(st.integers(7, 11)))


@st.composite
def lines(draw):
    """A convolution over one dimension."""
    conv = nn.Conv1d(4, 6, draw(st.integers(1, 4)), draw(steps), draw(st.sampled_from([0, 1, 2])), draw(st.integers(1, 2)),
                     groups=draw(st.sampled_from([1, 2])))
    return conv, (2, 4, draw(st.integers(7, 12)))


@st.composite
def pools(draw):
    """A maximum or an average, and the shape of a map for it."""
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    stride, ceil = (draw(steps), draw(steps)), draw(st.booleans())
    padding = tuple(draw(st.integers(0, size // 2)) for size in kernel)
    if draw(st.booleans()):
        pool = nn.MaxPool2d(kernel, stride, padding, draw(st.integers(1, 2)), ceil_mode=ceil)
    else:
        pool = nn.AvgPool2d(kernel, stride, padding, ceil, draw(st.booleans()), draw(st.sampled_from([None, None, 5])))
    return pool, (draw(st.integers(1, 2)), 2, draw(st.integers(7, 12)), draw(st.integers(7, 12)))


@few
@given(cases=st.lists(convolutions() | convolutions() | lines(), min_size=6, max_size=6))
def test_convolutions(cases):
    assert_equal_to_torch(Abreast(*(conv for conv, _ in cases)), *(random(*shape) for _, shape in cases))


@few
@given(cases=st.lists(pools(), min_size=8, max_size=8))
def test_pools(cases):
    assert_equal_to_torch(Abreast(*(pool for pool, _ in cases)), *(random(*shape) for _, shape in cases))


@few
@given(height=sizes, width=sizes, rows=st.integers(1, 12), columns=st.integers(1, 12))
def test_adaptive_pools(height, width, rows, columns):
    model = nn.ModuleList([nn.AdaptiveAvgPool2d((rows, None)), nn.AdaptiveMaxPool2d((rows, columns)),
                           nn.AdaptiveAvgPool2d(columns)])
    assert_equal_to_torch(Calls(**{str(i): pool for i, pool in enumerate(model)}), random(1, 3, height, width))


@few
@given(height=sizes, width=sizes, size=st.tuples(st.integers(1, 23), st.integers(1, 23)),
       factor=st.sampled_from([0.5, 0.75, 1.5, 2.0, 2.3, 3.0]))
def test_interpolate(height, width, size, factor):
    model = Calls(
        nearest=lambda x: F.interpolate(x, size),
        nearest_factor=lambda x: F.interpolate(x, scale_factor=factor),
        exact=lambda x: F.interpolate(x, size, mode="nearest-exact"),
        exact_factor=lambda x: F.interpolate(x, scale_factor=factor, mode="nearest-exact"),
        bilinear=lambda x: F.interpolate(x, size, mode="bilinear"),
        bilinear_factor=lambda x: F.interpolate(x, scale_factor=(factor, 1.5), mode="bilinear"),
        corners=lambda x: F.interpolate(x, size, mode="bilinear", align_corners=True),
        corners_factor=lambda x: F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=True))
    assert_equal_to_torch(model, random(1, 2, height, width))


@few
@example(pads=[-1, 2, 2, -1], height=6, width=6)    # wrapping around what is left after cropping
@given(pads=st.lists(st.integers(-2, 3), min_size=4, max_size=4), height=sizes, width=sizes)
def test_pad(pads, height, width):
    grow = [abs(size) for size in pads]
    model = Calls(
        zeros=lambda x: F.pad(x, pads),
        one_side=lambda x: F.pad(x, pads[:2]),
        constant=lambda x: F.pad(x, pads, value=0.5),
        channels=lambda x: F.pad(x, [0, 0, *pads]),
        everything=lambda x: F.pad(x, [*grow, 1, -1, 0, 2], value=-1.0),
        reflect=lambda x: F.pad(x, pads, mode="reflect"),
        replicate=lambda x: F.pad(x, pads, mode="replicate"),
        circular=lambda x: F.pad(x, pads, mode="circular"),
        unbatched=lambda x: F.pad(x[0], pads, mode="reflect"),
        matrix=lambda x: F.pad(x[0, 0], pads))
    assert_equal_to_torch(model, random(2, 5, height, width))


def test_pools_of_maps_without_a_batch():
    model = Calls(
        max=lambda x: F.max_pool2d(x, 2), average=lambda x: F.avg_pool2d(x, 3, 2, 1),
        adaptive=lambda x: F.adaptive_avg_pool2d(x, 2), values=lambda x: F.max_pool2d(x, 2, return_indices=True)[0])
    assert_equal_to_torch(model, random(3, 7, 8))


def test_padding_of_a_convolution_may_be_asymmetric():
    graph = assert_equal_to_torch(nn.Conv2d(2, 2, (2, 4), padding="same"), random(1, 2, 5, 5))
    assert graph.nodes["conv2d"].attributes["padding"] == (0, 1, 1, 2)


def test_core_aten_convolution_is_taken_too():
    model = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, groups=2), nn.Flatten(), nn.Linear(96, 3)).eval()
    x = random(1, 4, 4, 4)
    program = torch.export.export(model, (x,)).run_decompositions()
    graph = from_torch(program)
    assert [node.op for node in graph] == ["conv2d", "reshape", "linear"]
