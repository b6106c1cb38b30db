"""Inputs of every kind to an engine: each gives one clear error, or works."""

from __future__ import annotations

import ctypes
import mmap
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from small_model import SHAPE, Small
from torch import nn

import zellige as zl
from zellige.errors import InputError, UnsupportedModelError


@pytest.fixture(scope="module")
def model() -> Small:
    torch.manual_seed(0)
    return Small().eval()


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def engine(model: Small, x: torch.Tensor) -> zl.Engine:
    return zl.compile(model, (x,), threads=2)


# What is taken: any layout of the right shape and type

LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "every other column": lambda x: x.repeat_interleave(2, 3)[..., ::2],
    "expanded": lambda x: x[:1].expand(SHAPE),
    "needs gradients": lambda x: x.clone().requires_grad_(),
    "in a graph of gradients": lambda x: x.clone().requires_grad_() * 1,
    "a parameter": nn.Parameter,
    "negated by a flag": lambda x: torch.complex(torch.zeros_like(x), -x).conj().imag,
    "in the middle of its memory": lambda x: torch.cat([x, x, x])[2:4],
    "made in inference mode": lambda x: torch.inference_mode()(lambda: x + 0)(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensors_of_any_layout(engine: zl.Engine, x: torch.Tensor, layout: str) -> None:
    value = LAYOUTS[layout](x)
    before = value.detach().clone()
    got = engine(value)
    assert torch.equal(got, engine(value.detach().resolve_neg().contiguous()))
    assert torch.equal(value, before) and not got.requires_grad


ARRAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Fortran's order": np.asfortranarray,
    "backwards": lambda x: x[:, :, ::-1, ::-1],
    "broadcast, read-only": lambda x: np.broadcast_to(x[:1], SHAPE),
    "read-only": lambda x: np.frombuffer(x.tobytes(), np.float32).reshape(SHAPE),
    "at an odd address": lambda x: np.frombuffer(b"x" + x.tobytes(), np.float32, offset=1).reshape(SHAPE),
    "a subclass": np.ma.masked_array,
}


@pytest.mark.parametrize("layout", ARRAYS)
def test_arrays_of_any_layout(engine: zl.Engine, x: torch.Tensor, layout: str) -> None:
    value = ARRAYS[layout](x.numpy())
    got = engine(value)
    assert type(got) is np.ndarray
    np.testing.assert_array_equal(got, engine(np.array(value, np.float32, order="C", subok=False)))


def test_the_callers_array_is_never_written() -> None:
    """A stem with a stride reads the input where the caller has it: memory that can't be written will do."""
    x = torch.randn(1, 3, 20, 20).numpy()
    engine = zl.compile(nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU()).eval(), (torch.from_numpy(x),), threads=1)
    pages = mmap.mmap(-1, x.nbytes)
    pages.write(x.tobytes())
    array = np.frombuffer(pages, np.float32).reshape(x.shape)
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    assert protect(ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(x.nbytes), mmap.PROT_READ) == 0
    np.testing.assert_array_equal(engine(array), engine(x))


def test_arrays_give_arrays_and_tensors_give_tensors(engine: zl.Engine, x: torch.Tensor, model: Small) -> None:
    from_tensor, from_array = engine(x), engine(x.numpy())
    assert type(from_tensor) is torch.Tensor and type(from_array) is np.ndarray
    np.testing.assert_array_equal(from_tensor.numpy(), from_array)
    torch.testing.assert_close(from_tensor, model(x).detach(), rtol=1e-5, atol=1e-6)


def test_results_are_the_callers_own(engine: zl.Engine, x: torch.Tensor) -> None:
    first = engine(x)
    kept = first.clone()
    engine(-x)
    assert torch.equal(first, kept)
    first.zero_()
    assert torch.equal(engine(x), kept)


def test_results_are_on_the_cpu_whatever_the_default_device(engine: zl.Engine, x: torch.Tensor) -> None:
    expected = engine(x)
    with torch.device("meta"):
        assert torch.equal(engine(x), expected)


# What is refused


def fake(x: torch.Tensor) -> torch.Tensor:
    from torch._subclasses.fake_tensor import FakeTensorMode
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FakeTensorMode().from_tensor(x)


def without_storage(x: torch.Tensor) -> torch.Tensor:
    gone = x.clone()
    gone.untyped_storage().resize_(0)
    return gone


REFUSED: dict[str, tuple[Callable[[torch.Tensor], object], str]] = {
    "another batch": (lambda x: x[:1], r"input x: expected float32 of shape \[2, 3, 9, 11\].*got float32 of shape \[1, 3, 9, 11\]"),
    "an empty batch": (lambda x: x[:0], r"got float32 of shape \[0, 3, 9, 11\]"),
    "another rank": (lambda x: x[0], r"got float32 of shape \[3, 9, 11\]"),
    "sides turned": (lambda x: x.transpose(2, 3), r"got float32 of shape \[2, 3, 11, 9\]"),
    "float64": (lambda x: x.double(), "got float64"),
    "float16": (lambda x: x.half(), "got float16"),
    "bfloat16": (lambda x: x.bfloat16(), "got bfloat16"),
    "integers": (lambda x: x.int(), "got int32"),
    "complex": (lambda x: x.to(torch.complex64), "got complex64"),
    "meta": (lambda x: x.to("meta"), "on the CPU, got .* on meta"),
    "sparse": (lambda x: x.to_sparse(), "dense tensor.*sparse_coo"),
    "nested": (lambda x: torch.nested.nested_tensor([x[0], x[1]]), "dense tensor.*nested"),
    "fake": (fake, "numbers lie in memory, got a FakeTensor"),
    "storage given back": (without_storage, "numbers lie in memory"),
    "float64 array": (lambda x: x.numpy().astype(np.float64), "got float64"),
    "other byte order": (lambda x: x.numpy().astype(">f4"), "got >f4"),
    "objects": (lambda x: x.numpy().astype(object), "got object"),
    "array of another shape": (lambda x: x.numpy()[None], r"got float32 of shape \[1, 2, 3, 9, 11\]"),
    "a list": (lambda x: x.tolist(), "expected a numpy array or a torch tensor, got list"),
    "a number": (lambda x: 1.0, "got float"),
    "None": (lambda x: None, "got NoneType"),
    "a string": (lambda x: "x", "got str"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", REFUSED)
def test_inputs_that_do_not_fit(engine: zl.Engine, x: torch.Tensor, what: str) -> None:
    make, message = REFUSED[what]
    expected = engine(x)
    with pytest.raises(InputError, match=message):
        engine(make(x))
    assert torch.equal(engine(x), expected)  # nothing is half done


def test_a_tensor_under_vmap(engine: zl.Engine, x: torch.Tensor) -> None:
    with pytest.raises(InputError, match="traced or transformed"):
        torch.vmap(engine)(torch.stack([x, x]))


@pytest.mark.parametrize("count", [0, 2, 3])
def test_another_number_of_arguments(engine: zl.Engine, x: torch.Tensor, count: int) -> None:
    with pytest.raises(InputError, match=f"the arguments must be a tuple of 1, got a tuple of {count}"):
        engine(*[x] * count)


class Nested(nn.Module):
    def forward(self, pair, options):
        return {"sum": pair[0] + pair[1], "parts": (pair[0], options["scale"] * pair[1], None), "again": [pair[0]]}


def test_nested_arguments_and_results(x: torch.Tensor) -> None:
    model, arguments = Nested().eval(), ([x, x + 1], {"scale": torch.ones(1)})
    engine = zl.compile(model, arguments)
    got, expected = engine(*arguments), model(*arguments)
    assert list(got) == list(expected) and type(got["parts"]) is tuple and type(got["again"]) is list
    assert got["parts"][2] is None
    for ours, right in ((got["sum"], expected["sum"]), *zip(got["parts"][:2], expected["parts"][:2], strict=True)):
        torch.testing.assert_close(ours, right)
    mixed = engine([x.numpy(), x + 1], {"scale": np.ones(1, np.float32)})
    assert torch.equal(mixed["sum"], got["sum"])
    with pytest.raises(InputError, match=r"the arguments\[1\] must be a dict with the keys scale, got a dict with the keys size"):
        engine([x, x], {"size": torch.ones(1)})
    with pytest.raises(InputError, match=r"the arguments\[0\] must be a list of 2, got Tensor"):
        engine(x, {"scale": torch.ones(1)})


# Numbers that are none


def test_nan_and_infinity_spread_as_in_pytorch_where_no_weight_is_skipped(x: torch.Tensor) -> None:
    """Dense layers at their own pixels: what PyTorch leaves finite stays finite, what it does not, does not."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 20, 1)).eval()
    engine = zl.compile(model, (x,), winograd=False)
    for value in (float("nan"), float("inf"), -float("inf")):
        bad = x.clone()
        bad[0, 1, 4, 10] = bad[1, 0, 0, 0] = value
        expected, got = model(bad).detach(), engine(bad)
        assert not expected.isfinite().all() and expected.isfinite().any()
        assert torch.equal(got.isfinite(), expected.isfinite())
        torch.testing.assert_close(got[expected.isfinite()], expected[expected.isfinite()], rtol=1e-5, atol=1e-6)


def test_winograd_spreads_nan_over_its_tiles_and_no_further() -> None:
    model, x = nn.Conv2d(16, 16, 3, padding=1).eval(), torch.randn(1, 16, 24, 24)
    engine = zl.compile(model, (x,))
    assert engine.layers[0].path == "winograd"
    for y, column in ((0, 0), (11, 12), (23, 5)):
        bad = x.clone()
        bad[0, 3, y, column] = float("nan")
        got, expected = engine(bad)[0], model(bad)[0].detach()
        assert got[expected.isnan()].isnan().all()
        rows, columns = torch.where(got.isnan().any(0))
        assert (rows - y).abs().max() <= 5 and (columns - column).abs().max() <= 5
        same = ~got.isnan()
        assert torch.equal(got[same], engine(x)[0][same])


def test_a_bad_image_leaves_the_others_of_its_batch_alone(engine: zl.Engine, x: torch.Tensor) -> None:
    for value in (float("nan"), float("inf")):
        bad = x.clone()
        bad[0] = value
        got = engine(bad)
        assert not got[0].isfinite().any()
        assert torch.equal(got[1], engine(x)[1])
    assert engine(x).isfinite().all()  # and none of it is left


def test_largest_and_smallest_numbers(engine: zl.Engine) -> None:
    for value in (3e38, 1e-45, -1e-40, 0.0, -0.0):
        assert engine(np.full(SHAPE, value, np.float32)).shape == (2, 5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["second.weight", "last.bias"])
def test_weights_that_are_no_numbers(x: torch.Tensor, name: str, value: float) -> None:
    model = Small().eval()
    with torch.no_grad():
        model.get_parameter(name).view(-1)[1] = value
    with pytest.raises(UnsupportedModelError, match=rf"{name} holds 1 values that are NaN or infinite"):
        zl.compile(model, (x,))
