"""Names, origins, folding and nesting of what comes out of PyTorch."""

import io
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.utils.prune
from against_torch import Calls, assert_equal_to_torch, random
from torch import nn

from zellige.errors import InputError
from zellige.graph.from_torch import from_torch
from zellige.graph.reference import run_reference


class Block(nn.Module):
    """A residual block with squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.gate = nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.act(self.bn(self.conv(x)))
        y = y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))
        return self.act(x + y)


def test_nodes_and_constants_are_named_after_modules_and_parameters():
    graph = assert_equal_to_torch(nn.Sequential(OrderedDict(body=Block(), head=nn.AdaptiveAvgPool2d(1))), random(1, 4, 5, 5))
    assert list(graph.nodes) == ["body.conv", "body.bn", "body.act", "body.mean", "body.gate", "body.sigmoid",
                                 "body.multiply", "body.add", "body.act_2", "head"]
    assert list(graph.constants) == ["body.conv.weight", "body.bn.weight", "body.bn.bias", "body.bn.running_mean",
                                     "body.bn.running_var", "body.gate.weight", "body.gate.bias"]
    assert graph.nodes["body.add"].origin == "body" and graph.nodes["body.act_2"].origin == "body.act"
    assert graph.name == "Sequential" and list(graph.inputs) == ["input"]


def test_layers_of_others_that_hold_a_weight_give_their_name():
    class PaddedConv(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))

    graph = assert_equal_to_torch(nn.Sequential(PaddedConv(2, 3, 2), PaddedConv(3, 2, 2)), random(1, 2, 4, 4))
    assert list(graph.nodes) == ["0.pad", "0", "1.pad", "1"]


def test_constants_are_copies():
    model = nn.Linear(3, 2).eval()
    graph = from_torch(model, (random(1, 3),))
    before = graph.constants["weight"].copy()
    model.weight.data.zero_()
    assert np.array_equal(graph.constants["weight"], before) and before.any()


def test_what_does_not_depend_on_the_input_is_computed_beforehand():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.tensor([1.0, 2.0, 4.0]), persistent=False)
            self.offset = torch.tensor([[0.5]])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            grid = torch.arange(3) * self.scale.exp().view(1, 3) + torch.ones(1, 3)
            return x * grid + torch.zeros_like(x) + self.offset

    graph = assert_equal_to_torch(Scaled(), random(2, 3), tolerance=1e-6)
    assert [node.op for node in graph] == ["multiply", "add", "add"]


@pytest.mark.parametrize("change", [
    lambda conv: torch.nn.utils.prune.l1_unstructured(conv, "weight", 0.5),
    lambda conv: torch.nn.utils.parametrizations.weight_norm(conv)], ids=["mask", "weight norm"])
def test_parametrised_weights_become_plain_ones(change):
    conv = nn.Conv2d(2, 3, 3)
    change(conv)
    graph = from_torch(conv.eval(), (random(1, 2, 5, 5),))
    assert [node.op for node in graph] == ["conv2d"]
    weight = graph.constants[graph.nodes["conv2d"].inputs[1]]
    np.testing.assert_allclose(weight, conv.weight.detach().numpy(), rtol=2e-7)  # norms may be summed in another order


def test_shared_weights_stand_once():
    shared = nn.Linear(3, 3)
    graph = assert_equal_to_torch(nn.Sequential(shared, nn.ReLU(), shared), random(1, 3))
    assert len(graph.constants) == 2 and [node.op for node in graph] == ["linear", "activation", "linear"]


def test_an_expand_for_the_sake_of_a_product_leaves_no_node():
    model = Calls(gated=lambda x: x * x.mean((2, 3), keepdim=True).expand_as(x))
    assert [node.op for node in assert_equal_to_torch(model, random(1, 3, 4, 4))] == ["mean", "multiply"]


def test_arguments_and_results_nest():
    class Nested(nn.Module):
        def forward(self, pair: list[torch.Tensor], named: dict[str, torch.Tensor]) -> dict[str, object]:
            total = pair[0] + named["b"]
            return {"sum": total, "parts": [total, (pair[1] * 2, None)], "raw": named["a"]}

    graph = assert_equal_to_torch(Nested(), [random(2, 3), random(3)], {"a": random(1, 3), "b": random(2, 1)})
    assert graph.input_tree == {"tuple": [{"list": [0, 1]}, {"dict": [["a", 2], ["b", 3]]}]}
    assert graph.output_tree == {"dict": [["sum", 0], ["parts", {"list": [0, {"tuple": [1, None]}]}], ["raw", 2]]}


def test_every_output_is_a_node():
    model = nn.Linear(3, 2)
    model.forward = lambda x: (x, model.weight, x + 1)
    graph = assert_equal_to_torch(model, random(1, 3))
    assert set(graph.outputs) <= set(graph.nodes) and len(set(graph.outputs)) == 3


def test_strides_of_the_example_do_not_matter():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).eval()
    x = random(2, 3, 6, 6)
    plain = from_torch(model, (x,))
    for other in (x.to(memory_format=torch.channels_last), x.transpose(2, 3).contiguous().transpose(2, 3),
                  torch.cat([x, x], 1)[:, :3]):
        assert str(from_torch(model, (other,))) == str(plain)


def exported(batch: object = None) -> torch.export.ExportedProgram:
    shapes = None if batch is None else ({0: batch},)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU()).eval()
    return torch.export.export(model, (random(2, 3),), dynamic_shapes=shapes)


def test_an_exported_program_is_taken_as_it_is():
    program = exported()
    content = io.BytesIO()
    torch.export.save(program, content)
    content.seek(0)
    graph = from_torch(torch.export.load(content), name="loaded")
    assert list(graph.nodes) == ["0", "1"] and graph.name == "loaded"
    x = random(2, 3, seed=4)
    expected = program.module()(x).detach().numpy()
    assert np.allclose(run_reference(graph, [x.numpy()])[0], expected, atol=1e-6)


def test_example_inputs_fix_dynamic_shapes():
    program = exported(torch.export.Dim("batch", min=1, max=16))
    with pytest.raises(InputError, match="dynamic shapes"):
        from_torch(program)
    assert from_torch(program, (random(5, 3),)).inputs["input"].shape == (5, 3)
    with pytest.raises(InputError, match="fails on example inputs"):
        from_torch(program, (random(5, 7),))


def test_the_device_that_tensors_are_made_on_by_default_makes_no_difference():
    """Models are often built on the meta device; what becomes a constant holds numbers all the same."""
    x = random(2, 3)
    model = Calls(ones=lambda x: x + torch.ones_like(x[:, :1]), zeros=lambda x: x * 2 + x.new_zeros(3),
                  empty=lambda x: torch.cat([x, x[:, :0]], 1))
    with torch.device("meta"):
        graph = from_torch(model.eval(), (x,))
    expected = model(x)
    for got, name in zip(run_reference(graph, [x.numpy()]), expected, strict=True):
        np.testing.assert_allclose(got, expected[name].numpy(), rtol=1e-6)
