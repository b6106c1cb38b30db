"""Convolutions, pools, paddings and resizes of any shape equal PyTorch's."""

import torch
import torch.nn.functional as F
from against_torch import Calls, assert_equal_to_torch, few, random
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from zellige.graph.from_torch import from_torch

sizes = st.integers(5, 11)
steps = st.integers(1, 3)


@given(data=st.data())
def test_convolution(data):
    draw = data.draw
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    inputs = groups * draw(st.integers(1, 3))
    outputs = groups * draw(st.integers(1, 3))
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]))
    padding = draw(st.sampled_from(["same", "valid", (0, 1), (2, 0), (3, 3)]))
    stride = (1, 1) if padding == "same" else (draw(steps), draw(steps))
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, draw(st.booleans()), mode)
    batch = draw(st.sampled_from([(), (1,), (2,)]))
    assert_equal_to_torch(conv, random(*batch, inputs, draw(st.integers(7, 11)), draw(st.integers(7, 11))))


@few
@given(kernel=st.integers(1, 4), stride=steps, padding=st.integers(0, 2), dilation=st.integers(1, 2))
def test_convolution_over_one_dimension(kernel, stride, padding, dilation):
    conv = nn.Conv1d(4, 6, kernel, stride, padding, dilation, groups=2)
    assert_equal_to_torch(conv, random(2, 4, 9))


@given(kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)), stride=st.tuples(steps, steps), share=st.integers(0, 2),
       dilation=st.integers(1, 2), ceil=st.booleans(), height=sizes, width=sizes)
def test_max_pool(kernel, stride, share, dilation, ceil, height, width):
    padding = tuple(min(share, size // 2) for size in kernel)
    pool = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil)
    assert_equal_to_torch(pool, random(1, 2, height + 3, width + 3))


@given(kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)), stride=st.tuples(steps, steps), share=st.integers(0, 2),
       ceil=st.booleans(), count=st.booleans(), divisor=st.sampled_from([None, None, 5]), height=sizes, width=sizes)
def test_average_pool(kernel, stride, share, ceil, count, divisor, height, width):
    padding = tuple(min(share, size // 2) for size in kernel)
    pool = nn.AvgPool2d(kernel, stride, padding, ceil, count, divisor)
    assert_equal_to_torch(pool, random(2, 2, height, width))


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
        bilinear=lambda x: F.interpolate(x, size, mode="bilinear"),
        bilinear_factor=lambda x: F.interpolate(x, scale_factor=(factor, 1.5), mode="bilinear"),
        corners=lambda x: F.interpolate(x, size, mode="bilinear", align_corners=True),
        corners_factor=lambda x: F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=True))
    assert_equal_to_torch(model, random(1, 2, height, width))


@few
@given(pads=st.lists(st.integers(-2, 3), min_size=4, max_size=4), height=sizes, width=sizes)
def test_pad(pads, height, width):
    grow = [abs(size) for size in pads]
    model = Calls(
        zeros=lambda x: F.pad(x, pads),
        one_side=lambda x: F.pad(x, pads[:2]),
        constant=lambda x: F.pad(x, pads, value=0.5),
        channels=lambda x: F.pad(x, [0, 0, *pads]),
        everything=lambda x: F.pad(x, [*grow, 1, -1, 0, 2], value=-1.0),
        reflect=lambda x: F.pad(x, grow, mode="reflect"),
        replicate=lambda x: F.pad(x, grow, mode="replicate"),
        circular=lambda x: F.pad(x, grow, mode="circular"),
        unbatched=lambda x: F.pad(x[0], grow, mode="reflect"),
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
