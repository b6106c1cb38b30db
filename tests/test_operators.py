"""Operators end to end: PyTorch modules, compiled, equal PyTorch in float64, whatever their shapes and wherever they stand.

Tracing is what takes time here, so modules are tried side by side in one network. Each is tried in a *frame* as well: something
before it, so that it reads the engine's own memory and not the caller's, and after it a convolution that reads over the
edges, where whatever an operator leaves in the margins of its map would show.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import zellige as zl

torch.set_num_threads(1)

TOLERANCE = 5e-6
"""Relative to the largest result: f32 sums of at most some hundred terms, exponentials to two units in the last place."""
few = settings(max_examples=max(2, settings().max_examples // 12))
SIDE_BY_SIDE = 10

sizes = st.integers(1, 12)
batches = st.sampled_from([1, 1, 2, 3])
steps = st.integers(1, 3)


@dataclass(frozen=True)
class Case:
    """A module or function, and the shapes of its arguments."""

    work: Callable[..., object]
    shapes: tuple[tuple[int, ...], ...]

    def __repr__(self) -> str:
        return f"{self.work} on {' and '.join(map(str, self.shapes))}"


class Framed(nn.Module):
    """``work`` on what an addition made; if maps come out, what a 3×3 box around every pixel sees of them comes too."""

    def __init__(self, work: Callable[..., object]) -> None:
        super().__init__()
        self.work = work

    def forward(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        made = self.work(*(x + 0.25 for x in inputs))
        results = list(made) if isinstance(made, (list, tuple)) else [made]
        return [*results, *(box(y) for y in results if y.dim() == 4)]


def box(x: torch.Tensor) -> torch.Tensor:
    """The sum of the 3×3 pixels around each, zeros beyond the edges."""
    return F.conv2d(x, torch.ones(x.shape[1], 1, 3, 3, dtype=x.dtype), padding=1, groups=x.shape[1])


class Scaled(nn.Module):
    """``work`` on numbers ``factor`` times as large."""

    def __init__(self, work: Callable[..., object], factor: float) -> None:
        super().__init__()
        self.work, self.factor = work, factor

    def forward(self, x: torch.Tensor) -> object:
        return self.work(x * self.factor)


class Abreast(nn.Module):
    """Works side by side, each with inputs of its own."""

    def __init__(self, works: list[Callable[..., object]]) -> None:
        super().__init__()
        self.works = works
        self.modules_among = nn.ModuleList(_modules(works))

    def forward(self, inputs: list[list[torch.Tensor]]) -> list[object]:
        return [work(*arguments) for work, arguments in zip(self.works, inputs, strict=True)]


def _modules(works: list[Callable[..., object]]) -> list[nn.Module]:
    return [work for work in works if isinstance(work, nn.Module)]


def assert_equal(*cases: Case, tolerance: float = TOLERANCE) -> None:
    """Every case, bare and framed, gives what PyTorch gives in float64."""
    works = [work for case in cases for work in (case.work, Framed(case.work))]
    numbers = torch.Generator().manual_seed(0)
    inputs = [[torch.randn(shape, generator=numbers) for shape in case.shapes] for case in cases for _ in range(2)]
    model = Abreast(works).eval()
    engine = zl.compile(model, (inputs,), threads=2)
    got = engine(inputs)
    with torch.no_grad():
        wide = copy.deepcopy(model).double()
        expected = wide([[x.double() for x in arguments] for arguments in inputs])
    for number, (ours, right) in enumerate(zip(got, expected, strict=True)):
        what = f"{cases[number // 2]}, {'framed' if number % 2 else 'bare'}"
        ours, right = ([y] if isinstance(y, torch.Tensor) else list(y) for y in (ours, right))
        assert [y.shape for y in ours] == [y.shape for y in right], what
        for one, other in zip(ours, right, strict=True):
            error = float((one - other).abs().max()) / max(float(other.abs().max()), 1e-3)
            assert error <= tolerance, f"{what}: off by {error:.2g}"


def side_by_side(cases: st.SearchStrategy[Case]) -> st.SearchStrategy[list[Case]]:
    return st.lists(cases, min_size=SIDE_BY_SIDE, max_size=SIDE_BY_SIDE)


# Convolutions and products


@st.composite
def convolutions(draw: st.DrawFn) -> Case:
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    inputs = groups * draw(st.sampled_from([1, 2, 3, 4, 8]))
    if draw(st.integers(0, 3)) == 0:
        groups = inputs                                                     # depthwise, with a multiplier or without
    outputs = groups * draw(st.sampled_from([1, 2, 3, 8, 9]))
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (1, 7), (5, 1), (2, 2), (3, 5), (7, 7), (4, 1)]))
    dilation = (draw(st.sampled_from([1, 1, 2, 3])), draw(st.sampled_from([1, 1, 2])))
    extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    padding = draw(st.sampled_from(["same", "valid", (0, 0), (1, 1), (2, 3), "half", "whole"]))
    if padding == "half":
        padding = (extent[0] // 2, extent[1] // 2)
    elif padding == "whole":                                                # windows that lie in the padding alone
        padding = (extent[0], extent[1])
    mode = draw(st.sampled_from(["zeros", "zeros", "zeros", "reflect", "replicate", "circular"]))
    beyond = [size // 2 + size % 2 for size in extent] if padding == "same" else [0, 0] if padding == "valid" else padding
    size = []
    for reach, pad in zip(extent, beyond, strict=True):
        inside = 1 if padding == "same" else max(1, reach - 2 * pad)        # a kernel may be larger than the map
        least = max(inside, pad + 1) if mode in ("reflect", "circular") else inside
        size.append(draw(st.integers(least, least + 9)))
    stride = (1, 1) if padding == "same" else (draw(steps), draw(steps))
    torch.manual_seed(draw(st.integers(0, 99)))
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, draw(st.booleans()), mode)
    return Case(conv, ((draw(batches), inputs, *size),))


@few
@given(cases=side_by_side(convolutions()))
def test_convolutions(cases):
    assert_equal(*cases)


@st.composite
def lines(draw: st.DrawFn) -> Case:
    groups = draw(st.sampled_from([1, 2, 4]))
    conv = nn.Conv1d(4, 8, draw(st.integers(1, 5)), draw(steps), draw(st.integers(0, 3)), draw(st.integers(1, 2)), groups)
    return Case(conv, ((draw(batches), 4, draw(st.integers(9, 20))),))


@st.composite
def linears(draw: st.DrawFn) -> Case:
    inputs, outputs = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    lead = draw(st.sampled_from([(), (1,), (2,), (5,), (2, 3), (1, 17), (2, 3, 4), (1, 1, 1), (2, 2, 3, 2)]))
    return Case(nn.Linear(inputs, outputs, draw(st.booleans())), ((*lead, inputs),))


@few
@given(cases=side_by_side(lines() | linears() | linears()))
def test_lines_and_products(cases):
    assert_equal(*cases)


def test_products_with_a_computed_vector():
    assert_equal(
        Case(lambda x, y: x @ y, ((2, 3, 5, 7), (2, 3, 7, 1))), Case(lambda x, y: x @ y, ((2, 1, 7), (2, 7, 6))),
        Case(torch.bmm, ((3, 1, 8), (3, 8, 5))), Case(lambda x, y: x @ y, ((4, 6), (6,))), Case(lambda x, y: x @ y, ((6,), (6, 4))),
        Case(torch.dot, ((9,), (9,))), Case(lambda x, y: torch.einsum("nchw,nc->nhw", x, y), ((2, 3, 4, 5), (2, 3))))


# Activations


ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": F.relu, "relu6": F.relu6, "leaky_relu": nn.LeakyReLU(0.2), "elu": nn.ELU(0.7), "selu": F.selu, "celu": nn.CELU(0.5),
    "gelu": F.gelu, "gelu_tanh": nn.GELU("tanh"), "silu": F.silu, "mish": F.mish, "sigmoid": torch.sigmoid,
    "hard_sigmoid": F.hardsigmoid, "hard_swish": F.hardswish, "hard_tanh": nn.Hardtanh(-0.5, 2.0), "tanh": torch.tanh,
    "softplus": nn.Softplus(2.0, 3.0), "softsign": F.softsign, "tanhshrink": F.tanhshrink,
    "threshold": nn.Threshold(0.5, 0.5), "log_sigmoid": F.logsigmoid, "rrelu": nn.RReLU(),
    "prelu": nn.PReLU(), "prelu_channels": nn.PReLU(6, 0.1), "glu": nn.GLU(1), "dropout": nn.Dropout2d(),
    "clamp": lambda x: x.clamp(-0.5, 0.75), "clamp_low": lambda x: x.clamp(min=-0.1), "exp": torch.exp,
    "log": lambda x: (x.abs() + 0.1).log(), "sqrt": lambda x: x.abs().sqrt(), "rsqrt": lambda x: (x.abs() + 0.1).rsqrt(),
    "reciprocal": lambda x: 1 / (x.abs() + 0.1), "absolute": torch.abs, "negate": torch.neg, "square": torch.square,
    "power": lambda x: (x.abs() + 0.01) ** 1.7, "cube": lambda x: x**3, "minus_two": lambda x: (x.abs() + 0.1) ** -2,
    "exp2": torch.exp2, "expm1": torch.expm1, "log1p": lambda x: x.abs().log1p(), "log2": lambda x: (x.abs() + 0.1).log2(),
}


@pytest.mark.parametrize("shape", [(2, 6, 5, 7), (3, 6), (1, 6, 1, 1), (2, 6, 5)], ids=str)
def test_activations(shape):
    assert_equal(*(Case(work, (shape,)) for work in ACTIVATIONS.values()))


def test_activations_far_from_zero():
    """Saturated ends are exact, and nothing overflows on the way to them."""
    tame = [name for name in ACTIVATIONS if name not in ("exp", "exp2", "expm1", "cube", "power", "square", "minus_two")]
    for factor in (30.0, 1e4):
        assert_equal(*(Case(Scaled(ACTIVATIONS[name], factor), ((2, 6, 3, 3),)) for name in tame))


# Pools


@st.composite
def pools(draw: st.DrawFn) -> Case:
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    stride, ceil = (draw(steps), draw(steps)), draw(st.booleans())
    padding = tuple(draw(st.integers(0, size // 2)) for size in kernel)
    if draw(st.booleans()):
        pool = nn.MaxPool2d(kernel, stride, padding, draw(st.integers(1, 2)), ceil_mode=ceil)
    else:
        pool = nn.AvgPool2d(kernel, stride, padding, ceil, draw(st.booleans()), draw(st.sampled_from([None, None, 5])))
    return Case(pool, ((draw(batches), draw(st.integers(1, 3)), draw(st.integers(7, 20)), draw(st.integers(7, 20))),))


@st.composite
def adaptive_pools(draw: st.DrawFn) -> Case:
    size = (draw(sizes), draw(sizes))
    pool = draw(st.sampled_from([nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d]))(size)
    return Case(pool, ((draw(batches), draw(st.integers(1, 3)), draw(sizes), draw(sizes)),))


@few
@given(cases=side_by_side(pools() | adaptive_pools()))
def test_pools(cases):
    assert_equal(*cases)


def test_pools_over_lines():
    shape = ((2, 5, 13),)
    assert_equal(
        Case(nn.MaxPool1d(3, 2, 1), shape), Case(nn.MaxPool1d(2, ceil_mode=True), shape), Case(nn.AvgPool1d(4, 3, 2), shape),
        Case(nn.AvgPool1d(3, count_include_pad=False, padding=1), shape), Case(nn.AdaptiveAvgPool1d(4), shape),
        Case(nn.AdaptiveMaxPool1d(3), shape), Case(nn.AdaptiveAvgPool1d(1), shape))


# Moves


@st.composite
def joins(draw: st.DrawFn) -> Case:
    shape, dimension = [draw(st.integers(1, 9)) for _ in range(draw(st.integers(1, 5)))], draw(st.integers(-1, 0))
    dimension = draw(st.integers(0, len(shape) - 1)) if dimension else -1
    parts = []
    for _ in range(draw(st.integers(1, 4))):
        part = list(shape)
        part[dimension] = draw(st.integers(1, 9))
        parts.append(tuple(part))
    return Case(lambda *xs: torch.cat([*xs, xs[0]], dimension), tuple(parts))


@st.composite
def cuts(draw: st.DrawFn) -> Case:
    shape = tuple(draw(st.integers(2, 11)) for _ in range(draw(st.integers(2, 4))))
    dimension = draw(st.integers(0, len(shape) - 1))
    kind = draw(st.sampled_from(["slice", "chunk", "split", "sizes", "unbind"]))
    if kind == "slice":
        bounds = []
        for size in shape:
            start = draw(st.integers(0, size - 1))
            bounds.append(slice(start, draw(st.integers(start + 1, size)), draw(st.integers(1, 3))))
        return Case(lambda x: x[tuple(bounds)], (shape,))
    works = {
        "chunk": lambda x: x.chunk(3, dimension), "split": lambda x: x.split(2, dimension),
        "sizes": lambda x: x.split([1, shape[dimension] - 1], dimension), "unbind": lambda x: x.unbind(dimension)}
    return Case(works[kind], (shape,))


@st.composite
def turns(draw: st.DrawFn) -> Case:
    shape = tuple(draw(st.integers(1, 9)) for _ in range(draw(st.integers(2, 5))))
    order = draw(st.permutations(range(len(shape))))
    kind = draw(st.sampled_from(["permute", "flatten", "regroup", "stack", "flip", "roll", "repeat"]))
    works = {
        "permute": lambda x: x.permute(order), "flatten": lambda x: x.permute(order).flatten(len(shape) // 2 - 1),
        "regroup": lambda x: x.permute(order).reshape(shape), "stack": lambda x: torch.stack([x, -x], order[0]),
        "flip": lambda x: x.flip(order[0]), "roll": lambda x: x.roll(order[0], order[-1]),
        "repeat": lambda x: x.repeat([1 + index % 2 for index in order])}
    return Case(works[kind], (shape,))


@few
@given(cases=side_by_side(joins() | cuts() | turns()))
def test_moves(cases):
    assert_equal(*cases)


def test_shuffles():
    maps = ((2, 12, 4, 6),)
    assert_equal(
        Case(nn.ChannelShuffle(3), maps), Case(lambda x: x.view(2, 4, 3, 4, 6).transpose(1, 2).reshape(2, 12, 4, 6), maps),
        Case(nn.PixelShuffle(2), maps), Case(nn.PixelUnshuffle(2), maps), Case(lambda x: x.repeat_interleave(2, 1), maps),
        Case(lambda x: x.tile(1, 2, 1, 1), maps), Case(lambda x: x.rot90(1, (2, 3)), maps),
        Case(lambda x: x[:, :, None, :, 0], maps),
        Case(lambda x: x.unflatten(1, (3, 4)).flatten(2), maps), Case(lambda x: x[:, [3, 1, 1, 0]], maps))


@st.composite
def pads(draw: st.DrawFn) -> Case:
    height, width = draw(st.integers(4, 9)), draw(st.integers(4, 9))
    mode = draw(st.sampled_from(["constant", "constant", "reflect", "replicate", "circular"]))
    grow = [draw(st.integers(-1, 3)) for _ in range(4)]
    value = draw(st.sampled_from([0.0, 1.5])) if mode == "constant" else None
    return Case(lambda x: F.pad(x, grow, mode, value), ((draw(batches), 3, height, width),))


@st.composite
def resizes(draw: st.DrawFn) -> Case:
    size = (draw(st.integers(1, 23)), draw(st.integers(1, 23)))
    factor = draw(st.sampled_from([0.5, 0.75, 1.5, 2.0, 2.3, 3.0]))
    options = draw(st.sampled_from([
        {"size": size}, {"scale_factor": factor}, {"size": size, "mode": "bilinear"},
        {"scale_factor": (factor, 1.5), "mode": "bilinear"}, {"size": size, "mode": "bilinear", "align_corners": True},
        {"scale_factor": factor, "mode": "bilinear", "align_corners": True}, {"size": size, "mode": "area"}]))
    return Case(lambda x: F.interpolate(x, **options), ((draw(batches), 3, draw(st.integers(2, 12)), draw(st.integers(2, 12))),))


@few
@given(cases=side_by_side(pads() | resizes()))
def test_pads_and_resizes(cases):
    assert_equal(*cases)


# Arithmetic, reductions, norms


ARITHMETIC = [torch.add, torch.sub, torch.mul, torch.maximum, torch.minimum, lambda x, y: x / (y.abs() + 0.5),
              lambda x, y: torch.add(x, y, alpha=0.5), lambda x, y: y - x, lambda x, y: x * y + y, lambda x, y: F.relu(x + y)]


@st.composite
def sums(draw: st.DrawFn) -> Case:
    """Any two shapes that broadcast, maps and others; one of them may be a constant."""
    full = [draw(st.integers(1, 9)) for _ in range(draw(st.sampled_from([2, 3, 4, 4, 4, 5])))]
    thin = [size if draw(st.booleans()) else 1 for size in full][draw(st.integers(0, len(full) - 1)):]
    work = draw(st.sampled_from(ARITHMETIC))
    if draw(st.booleans()):
        constant = torch.randn(thin, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
        if draw(st.booleans()):
            return Case(lambda x: work(x, constant.to(x.dtype)), (tuple(full),))
        return Case(lambda x: work(constant.to(x.dtype), x), (tuple(full),))
    return Case(work, draw(st.permutations((tuple(full), tuple(thin)))))


@st.composite
def reductions(draw: st.DrawFn) -> Case:
    shape = tuple(draw(st.integers(1, 9)) for _ in range(draw(st.integers(1, 5))))
    over = draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    keep = draw(st.booleans())
    work = draw(st.sampled_from([
        lambda x: x.mean(over, keep), lambda x: x.sum(over, keep), lambda x: x.amax(over, keep), lambda x: x.amin(over, keep),
        lambda x: x.softmax(over[0]), lambda x: x.log_softmax(over[0]), lambda x: x.var(over, unbiased=False, keepdim=keep),
        lambda x: x.logsumexp(over, keep), lambda x: torch.linalg.vector_norm(x, 2, over, keep),
        lambda x: torch.linalg.vector_norm(x, 1, over, keep), lambda x: x.mean(), lambda x: x.mean(over).sum()]))
    return Case(work, (shape,))


@few
@given(cases=side_by_side(sums() | sums() | reductions()))
def test_arithmetic_and_reductions(cases):
    assert_equal(*cases)


class LayerNorm2d(nn.LayerNorm):
    """Over the channels of a map, as ConvNeXt has it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class StandardizedConv2d(nn.Conv2d):
    """Weights of mean 0 and variance 1, as ResNet v2 and NFNets have them: they are constants all the same."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = F.batch_norm(self.weight.reshape(1, len(self.weight), -1), None, None, training=True, eps=1e-6)
        return F.conv2d(x, weight.reshape_as(self.weight), self.bias, self.stride, self.padding)


def with_numbers(norm: nn.Module) -> nn.Module:
    for name, tensor in (*norm.named_parameters(), *norm.named_buffers()):
        if tensor.is_floating_point():
            tensor.data.uniform_(0.5 if "var" in name else -1.0, 1.5)
    return norm


def test_norms():
    torch.manual_seed(3)
    maps, tokens = ((2, 6, 4, 5),), ((2, 6, 8),)
    norms = [
        (nn.BatchNorm2d(6), maps), (nn.BatchNorm2d(6, affine=False), maps), (nn.BatchNorm2d(6, track_running_stats=False), maps),
        (nn.BatchNorm1d(6), tokens), (nn.BatchNorm1d(6), ((3, 6),)), (nn.GroupNorm(3, 6), maps),
        (nn.GroupNorm(2, 6, affine=False), maps), (nn.GroupNorm(1, 6), maps),
        (nn.LayerNorm(8), tokens), (nn.LayerNorm((4, 5)), maps), (LayerNorm2d(6), maps),
        (nn.InstanceNorm2d(6), maps), (nn.InstanceNorm2d(6, affine=True, track_running_stats=True), maps), (nn.RMSNorm(8), tokens),
        (StandardizedConv2d(6, 9, 3, padding=1), maps)]
    own = [lambda x: F.normalize(x, dim=1), lambda x: F.normalize(x, p=1, dim=(2, 3)), lambda x: x / x.std((2, 3), keepdim=True),
           lambda x: torch.var_mean(x, (2, 3))[1], lambda x: F.local_response_norm(x, 3)]
    assert_equal(*(Case(with_numbers(norm), shapes) for norm, shapes in norms), *(Case(work, maps) for work in own))


def test_what_is_not_supported_is_named_once_for_all():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 4, 2), nn.Upsample(scale_factor=2, mode="bicubic")).eval()
    with pytest.raises(zl.ZelligeError, match=r"(?s)conv_transpose2d.input, in 1.*upsample_bicubic2d.vec, in 2.*Replace them"):
        zl.compile(model, (torch.randn(1, 3, 9, 9),))
