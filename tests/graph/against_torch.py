"""PyTorch in float64 as the oracle of the way in: a model, brought into the graph and run by the reference."""

import copy

import numpy as np
import torch
from hypothesis import settings
from torch.utils import _pytree as pytree

from zellige.graph.from_torch import from_torch
from zellige.graph.ir import Graph
from zellige.graph.reference import run_reference
from zellige.graph.trees import flatten, unflatten

torch.set_num_threads(1)
few = settings(max_examples=min(settings().max_examples // 3, 50))
"""For properties of which every example exports a model of many operators."""

TOLERANCE = 1e-9
"""Both sides compute in float64 from the same float32 weights; they differ by the order of their sums."""


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, over the largest expected magnitude."""
    assert got.shape == expected.shape
    scale = max(float(np.abs(expected).max(initial=0.0)), 1e-30)
    return float(np.abs(got - expected).max(initial=0.0)) / scale


def assert_equal_to_torch(model: torch.nn.Module, *inputs: object, tolerance: float = TOLERANCE) -> Graph:
    """The graph of ``model`` gives what the model gives in float64, nested in the same way."""
    model = model.eval()
    graph = from_torch(model, inputs)
    flat = flatten(graph.input_tree, inputs)
    results = run_reference(graph, [flat[position].numpy() for position in range(len(graph.inputs))])
    with torch.no_grad():
        wide = pytree.tree_map(lambda tensor: tensor.double(), inputs)
        expected = copy.deepcopy(model).double()(*wide)
    got = unflatten(graph.output_tree, results)
    assert_same(got, expected, tolerance)
    return graph


def assert_same(got: object, expected: object, tolerance: float) -> None:
    if isinstance(expected, torch.Tensor):
        assert relative_error(np.asarray(got), expected.detach().numpy()) <= tolerance
    elif isinstance(expected, dict):
        assert isinstance(got, dict) and list(got) == list(expected)
        for key, item in expected.items():
            assert_same(got[key], item, tolerance)
    elif isinstance(expected, (list, tuple)):
        assert type(got) is type(expected) and len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_same(one, other, tolerance)
    else:
        assert got is expected


class Calls(torch.nn.Module):
    """A model that returns every function's result on the same arguments, under the function's name."""

    def __init__(self, **functions: object) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, *inputs: object) -> dict[str, object]:
        return {name: function(*inputs) for name, function in self.functions.items()}


class Abreast(torch.nn.Module):
    """Layers side by side, each with an input of its own: one export tries many."""

    def __init__(self, *layers: torch.nn.Module) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(layers)

    def forward(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        return [layer(x) for layer, x in zip(self.layers, inputs, strict=True)]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
