"""XXᵀ of a layer against explicitly unfolded inputs in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import zellige.prune.solvers.layer_hessian as layer_hessian
from zellige.patterns import WeightShape
from zellige.prune.solvers.layer_hessian import LayerHessian
from zellige.prune.windows import seen_by_taps

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, torch.Tensor]:
    """A convolution of any kind, and inputs that it takes."""
    spatial = draw(st.sampled_from([1, 2, 2, 2, 3]))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    several = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(spatial))  # noqa: E731
    kernel, stride, dilation = several(1, 3), several(1, 3), several(1, 2)
    mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]))
    padding = draw(st.sampled_from(["valid", "same"])) if set(stride) == {1} else several(0, 2)
    columns = groups * draw(st.integers(1, 3))
    module = CONVOLUTIONS[spatial - 1](columns, groups * draw(st.integers(1, 2)), kernel, stride, padding, dilation, groups,
                                       padding_mode=mode).double()
    sizes = [(taps - 1) * apart + draw(st.integers(3, 5)) for taps, apart in zip(kernel, dilation, strict=True)]
    torch.manual_seed(draw(st.integers(0, 1000)))
    return module, torch.randn(draw(st.integers(1, 3)), columns, *sizes, dtype=torch.float64)


def unfolded(module: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Groups × inputs × everything: what the convolution itself gives with a filter that takes one input alone."""
    one = CONVOLUTIONS[inputs.dim() - 3](module.in_channels, module.groups, module.kernel_size, module.stride, module.padding,
                                         module.dilation, module.groups, bias=False, padding_mode=module.padding_mode).double()
    seen = []
    for position in range(one.weight[0].numel()):
        with torch.no_grad():
            one.weight.zero_()
            one.weight.flatten(1)[:, position] = 1
            seen.append(one(inputs).transpose(0, 1).flatten(1))
    return torch.stack(seen, 1)


@given(convolutions(), st.booleans())
def test_convolutions(case: tuple[nn.Module, torch.Tensor], in_pieces: bool) -> None:
    module, inputs = case
    shape = WeightShape(tuple(module.weight.shape), module.groups)
    kept = layer_hessian.PIECE, layer_hessian.FEW
    layer_hessian.PIECE, layer_hessian.FEW = (8, 2) if in_pieces else kept
    try:
        found = LayerHessian(shape)
        for _ in range(2):
            found.add(module, inputs)
    finally:
        layer_hessian.PIECE, layer_hessian.FEW = kept
    seen = unfolded(module, inputs)
    torch.testing.assert_close(found.matrix(), 2 * seen @ seen.mT, rtol=1e-12, atol=1e-12)
    rows = module.weight.detach().reshape(module.groups, shape.rows_per_group, -1)
    outputs = rows @ seen  # what the quadratic form stands for
    assert float(((rows @ found.matrix()) * rows).sum()) == pytest.approx(2 * float(outputs.square().sum()), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("leading", [(7,), (2, 5), (2, 3, 4), ()])
def test_linear_layers(leading: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    module, inputs = nn.Linear(5, 3).double(), torch.randn(*leading, 5, dtype=torch.float64)
    found = LayerHessian(WeightShape((3, 5)))
    found.add(module, inputs)
    samples = inputs.reshape(-1, 5)
    torch.testing.assert_close(found.matrix()[0], samples.T @ samples, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_narrow_types_are_multiplied_in_float32_and_added_in_float64(dtype: torch.dtype) -> None:
    """300 inputs, so in panels. Products of 1000 numbers each err by about √1000 · 2⁻²⁴ of their size."""
    torch.manual_seed(0)
    module, batches = nn.Linear(300, 4).to(dtype), torch.randn(4, 1000, 300).to(dtype)
    found = LayerHessian(WeightShape((4, 300)))
    for batch in batches:
        found.add(module, batch)
    exact = batches.double().flatten(0, 1)
    scale = float((exact.T @ exact).diagonal().mean())
    torch.testing.assert_close(found.matrix()[0], exact.T @ exact, rtol=0, atol=3e-6 * scale)
    assert torch.equal(found.matrix(), found.matrix().mT)


def test_a_single_image_without_a_batch() -> None:
    module = nn.Conv2d(2, 3, 3, padding=1).double()
    one = torch.randn(2, 4, 4, dtype=torch.float64)
    assert [tuple(tap.shape) for tap in seen_by_taps(module, one)] == [(1, 2, 4, 4)] * 9


def test_batches_without_samples_add_nothing() -> None:
    for module, empty in ((nn.Conv2d(2, 3, 3), torch.zeros(0, 2, 4, 4)), (nn.Linear(4, 3), torch.zeros(0, 4))):
        found = LayerHessian(WeightShape(tuple(module.weight.shape)))
        found.add(module, empty)
        assert not found.matrix().any()
