"""Operators end to end: PyTorch modules, compiled, equal PyTorch in float64, whatever their shapes and wherever they stand.

Tracing is what takes time here, so modules are tried side by side in one network. Each is tried in a *frame* as well: something
before it, so that it reads the engine's own memory and not the caller's, and after it a convolution that reads over the
edges, where whatever an operator leaves in the margins of its map would show.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from hypothesis import settings
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


ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": F.relu, "relu6": F.relu6, "leaky_relu": nn.LeakyReLU(0.2), "elu": nn.ELU(0.7), "selu": F.selu, "celu": nn.CELU(0.5),
    "gelu": F.gelu, "gelu_tanh": nn.GELU("tanh"), "silu": F.silu, "mish": F.mish, "sigmoid": torch.sigmoid,
    "hard_sigmoid": F.hardsigmoid, "hard_swish": F.hardswish, "hard_tanh": nn.Hardtanh(-0.5, 2.0), "tanh": torch.tanh,
    "softplus": nn.Softplus(2.0, 3.0), "softsign": F.softsign, "tanhshrink": F.tanhshrink,
    "threshold": nn.Threshold(0.5, 0.5), "threshold_value": nn.Threshold(0.1, 20.0), "hard_shrink": nn.Hardshrink(),
    "soft_shrink": nn.Softshrink(0.75), "sign": torch.sign, "erf": torch.erf, "choice": lambda x: torch.where(x > 0, x, 0.1 * x),
    "filled": lambda x: x.masked_fill(x * 2 <= x.flip(-1), -0.5), "log_sigmoid": F.logsigmoid, "rrelu": nn.RReLU(),
    "prelu": nn.PReLU(), "prelu_channels": nn.PReLU(6, 0.1), "glu": nn.GLU(1), "dropout": nn.Dropout2d(),
    "clamp": lambda x: x.clamp(-0.5, 0.75), "clamp_low": lambda x: x.clamp(min=-0.1), "exp": torch.exp,
    "log": lambda x: (x.abs() + 0.1).log(), "sqrt": lambda x: x.abs().sqrt(), "rsqrt": lambda x: (x.abs() + 0.1).rsqrt(),
    "reciprocal": lambda x: 1 / (x.abs() + 0.1), "absolute": torch.abs, "negate": torch.neg, "square": torch.square,
    "power": lambda x: (x.abs() + 0.01) ** 1.7, "cube": lambda x: x**3, "minus_two": lambda x: (x.abs() + 0.1) ** -2,
    "exp2": torch.exp2, "expm1": torch.expm1, "log1p": lambda x: x.abs().log1p(), "log2": lambda x: (x.abs() + 0.1).log2(),
}
