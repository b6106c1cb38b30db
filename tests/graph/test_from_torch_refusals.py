"""What can't be brought into the graph is one clear error, before anything else is done."""

import collections

import pytest
import torch
import torch.nn.functional as F
from against_torch import Calls, random
from torch import nn

from zellige.errors import InputError, UnsupportedModelError
from zellige.graph.from_torch import from_torch

X = random(1, 8, 8, 8)
Pair = collections.namedtuple("Pair", "first second")


class Function(nn.Module):
    """A model that is one function, with a buffer to write to."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("count", torch.zeros(1))

    def forward(self, *inputs: object) -> object:
        return self.function(self, *inputs)


def refusal(model: object, *inputs: object, error: type[Exception] = UnsupportedModelError) -> str:
    """The message of the error that ``model`` causes."""
    model = model.eval() if isinstance(model, nn.Module) else model
    with pytest.raises(error) as caught:
        from_torch(model, inputs or (X,))
    return str(caught.value)


def test_every_unsupported_operator_is_named_with_its_module():
    model = nn.Sequential(collections.OrderedDict(
        up=nn.ConvTranspose2d(8, 4, 2), wave=Function(lambda self, x: x.sin().cumsum(1)), conv=nn.Conv2d(4, 4, 3),
        again=Function(lambda self, x: x.sin()), resize=nn.Upsample(scale_factor=2, mode="bicubic")))
    message = refusal(model)
    lines = [line.strip() for line in message.splitlines() if line.startswith("  ")]
    assert lines == ["conv_transpose2d.input, in up", "sin, in wave, again", "cumsum, in wave",
                     "upsample_bicubic2d.vec, in resize"]
    assert "Replace them" in message


@pytest.mark.parametrize("function, names", [
    (lambda self, x: F.max_pool2d(x, 2, return_indices=True), ["max_pool2d_with_indices (the indices of the maxima)"]),
    (lambda self, x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), ["max_unpool2d", "indices"]),
    (lambda self, x: x.max(1), ["max.dim (the indices of the extremes)"]),
    (lambda self, x: x * (x > 0), ["gt.Scalar (a truth value that is more than the condition of a choice)"]),
    (lambda self, x: (x, x == 0), ["eq.Scalar (a truth value"]),
    (lambda self, x: torch.where(x > 0, x > 1, x < -1).float(), ["where.self (it computes in bool, expected float32)"]),
    (lambda self, x: torch.where(torch.logical_and(x > 0, x < 1), x, 0.0), ["gt.Scalar", "lt.Scalar", "logical_and"]),
    (lambda self, x: x + torch.rand(8), ["rand"]),
    (lambda self, x: x @ x, ["matmul (a product of two computed values)"]),
    (lambda self, x: torch.ones(1, 8, 5, 8) @ x, ["matmul (a product of [1, 8, 5, 8] and [1, 8, 8, 8])"]),
    (lambda self, x: F.conv2d(x, x), ["conv2d (a weight that is computed from the input)"]),
    (lambda self, x: x.half().relu().float(), ["_to_copy (it computes in float16, expected float32)"]),
    (lambda self, x: x.to(torch.int32) + 1, ["_to_copy (it computes in int32, expected float32)"]),
    (lambda self, x: x + torch.arange(8, dtype=torch.float64), ["add.Tensor (it computes in float64"]),
    (lambda self, x: torch.div(x, 2, rounding_mode="floor"), ["div.Tensor_mode (division rounded by floor)"]),
    (lambda self, x: x[:, :, [0, 1], [1, 0]], ["index.Tensor (several index tensors)"]),
    (lambda self, x: x.argmax(1), ["argmax"]),
])
def test_forms_of_operators_are_refused_by_name(function, names):
    message = refusal(Function(function))
    assert all(name in message for name in names), message
    assert message.count("\n  ") == len(names) or "max_unpool2d" in names


@pytest.mark.parametrize("function", [
    lambda self, x: x + 1 if x.sum() > 0 else x,
    lambda self, x: x + float(x.max()),
    lambda self, x: x + x.max().item(),
    lambda self, x: x[x > 0],
    lambda self, x: x.nonzero(),
    lambda self, x: torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,)),
], ids=["if", "float", "item", "mask", "nonzero", "cond"])
def test_dynamic_control_flow(function, capfd):
    message = refusal(Function(function))
    assert "values" in message and "compiled network" in message
    assert capfd.readouterr().err == "", "the error says it, and the tracer nothing beside it"


def test_the_line_that_decides_is_shown():
    assert "x + 1 if x.sum() > 0 else x" in refusal(Function(lambda self, x: x + 1 if x.sum() > 0 else x))


def test_training_mode():
    model = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Dropout()).eval()
    model[1].train()
    with pytest.raises(UnsupportedModelError, match=r"training mode \(module 1\); call model.eval\(\)"):
        from_torch(model, (X,))


@pytest.mark.parametrize("model, words", [
    (nn.Conv2d(8, 4, 3).double(), "weight is float64, expected float32"),
    (nn.Conv2d(8, 4, 3).to(torch.bfloat16), "weight is bfloat16, expected float32"),
    (nn.Conv2d(8, 4, 3, device="meta"), "weight is on device meta"),
    (object(), "expected a torch.nn.Module"),
    (torch.jit.script(nn.Conv2d(8, 4, 3)), "is TorchScript, scripted or traced"),
    (Function(lambda self, x: torch.from_numpy(x.numpy())), "torch.export can't trace Function"),
])
def test_models_that_do_not_qualify(model, words):
    assert words in refusal(model)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("parameter", ["weight", "bias"])
def test_weights_that_are_not_finite(value, parameter):
    conv = nn.Conv2d(8, 4, 3)
    getattr(conv, parameter).data.view(-1)[2] = value
    assert f"layer.{parameter} holds 1 values that are NaN or infinite" in refusal(
        nn.Sequential(collections.OrderedDict(layer=conv)))


def test_results_without_elements():
    assert "without elements, of shape (1, 0, 8, 8)" in refusal(Function(lambda self, x: (x, x[:, 3:3])))


def test_constants_that_become_infinite():
    assert "NaN or infinite" in refusal(Function(lambda self, x: x + self.count.log()))


def test_constants_that_are_not_finite_are_named_with_their_operators():
    """Those that PyTorch brings in itself, and those of the model, beside what else is not supported."""
    message = refusal(nn.Sequential(collections.OrderedDict(
        mask=Function(lambda self, x: x.masked_fill(x > 1, -torch.inf)), clean=Function(lambda self, x: x.nan_to_num()),
        wave=Function(lambda self, x: x.sin()))))
    lines = [line.strip() for line in message.splitlines() if line.startswith("  ")]
    assert [line.split(" ")[0].rstrip(",") for line in lines] == ["masked_fill.Scalar", "nan_to_num", "sin"]
    assert "holds 1 values that are NaN or infinite" in lines[0] and lines[0].endswith("in mask") and lines[1].endswith("in clean")


@pytest.mark.parametrize("inputs, words", [
    ((X.long(),), "must be float32, got int64"), ((X.double(),), "must be float32, got float64"),
    ((X.to("meta"),), "on the CPU, got device meta"), ((X.to_sparse(),), "dense tensor, got layout"),
    ((X[:0],), "is empty: its shape is (0, 8, 8, 8)"), ((X.numpy(),), "got ndarray"), ((X, None), "got NoneType"),
    ((X, 3), "[1] must be a float32 tensor, got int"),
    (({"a": [X, X.long()]},), "['a'][1] must be float32"),
])
def test_example_inputs_that_do_not_qualify(inputs, words):
    assert words in refusal(Calls(), *inputs, error=InputError)


def test_a_tensor_is_no_tuple_of_arguments():
    with pytest.raises(InputError, match=r"such as \(x,\), got Tensor"):
        from_torch(nn.ReLU().eval(), X)


def test_inputs_that_the_model_itself_refuses():
    message = refusal(nn.Conv2d(3, 4, 3), error=InputError)
    assert "Conv2d itself fails" in message and "(1, 8, 8, 8)" in message


def test_keyword_arguments():
    class Sum(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

    program = torch.export.export(Sum().eval(), (X,), {"y": X})
    with pytest.raises(UnsupportedModelError, match="exported with keyword arguments"):
        from_torch(program)


def counted(self, x):
    self.count.add_(1)
    return x + self.count


@pytest.mark.parametrize("function, words", [
    (lambda self, x: x.add_(1), "in place"), (counted, "changes 'count' in place"),
    (lambda self, x: (x + 1, 3), "returns 3, which is no tensor"), (lambda self, x: None, "returns no tensor"),
    (lambda self, x: Pair(x + 1, x), "holds a Pair"), (lambda self, x: {1: x + 1}, "with the keys [1]; expected words"),
    (lambda self, x: (x + 1, torch.arange(3)), "expected float32"),
])
def test_results_that_do_not_qualify(function, words):
    assert words in refusal(Function(function))
