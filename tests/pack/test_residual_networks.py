"""Real networks that lost half of their 8 × 8 blocks: the file is as small as promised, and the graph comes back."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from zellige.graph.from_torch import from_torch
from zellige.graph.ir import Graph
from zellige.pack import load_graph, save_graph
from zellige.passes.pipeline import optimize
from zellige.patterns import Block
from zellige.prune import prune


def half_of(name: str, image: int) -> tuple[Graph, int]:
    """The optimized graph of a network that lost half of its blocks, and the bytes of its dense parameters."""
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None).eval()
    example = (torch.randn(1, 3, image, image),)
    prune(model, Block(8, 8), 0.5, example)
    return optimize(from_torch(model, example)), sum(4 * parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name, image", [("resnet18", 32), pytest.param("resnet50", 224, marks=pytest.mark.full)])
def test_round_trip_and_size(name: str, image: int, tmp_path: Path) -> None:
    graph, dense_bytes = half_of(name, image)
    save_graph(graph, tmp_path / "model.zlg")
    assert (tmp_path / "model.zlg").stat().st_size <= 0.52 * dense_bytes
    loaded, _ = load_graph(tmp_path / "model.zlg")
    assert str(loaded) == str(graph)
    assert loaded.nodes == graph.nodes
    assert (loaded.input_tree, loaded.output_tree) == (graph.input_tree, graph.output_tree)
    for constant, array in graph.constants.items():
        np.testing.assert_array_equal(loaded.constants[constant], array)
