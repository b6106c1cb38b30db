"""A layer in tiles inside of what Inductor compiles, on the CPU: code around it is C++, itself it runs in Triton's interpreter."""

from __future__ import annotations

import shutil

import pytest
import torch

from zellige.cuda.kernels.config import Config
from zellige.cuda.layers.choices import Choice
from zellige.cuda.layers.linear import TileWiseLinear


class Network(torch.nn.Module):
    """Two layers in tiles with operators before, between and behind, which Inductor may fuse."""

    def __init__(self, way: str) -> None:
        super().__init__()
        choice = Choice(way, Config(16, 4, 3, 1), 1.0, 1.0)
        kept = (torch.rand(1, 72) < 0.4, torch.rand(1, 40) < 0.4)
        self.first, self.second = (
            TileWiseLinear((torch.randn(rows, mask.shape[1]) * mask).half(), torch.randn(rows).half(), choice, tile=16, step=16)
            for rows, mask in zip((40, 24), kept, strict=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        between = torch.relu(self.first(x * 0.5 + 1))
        return self.second(between - between.mean(-1, keepdim=True)).float() * 0.25 + 1


@pytest.mark.full
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile is NOT RUN: Inductor needs g++ on CPUs")
@pytest.mark.parametrize("way", ["groups", "columns"])
def test_inductor_compiles_what_is_around_it(way: str) -> None:
    torch._dynamo.reset()
    network, x = Network(way), torch.randn(2, 5, 72).half()
    with torch.no_grad():
        y, expected = torch.compile(network, fullgraph=True)(x), network(x)
    assert (y - expected).abs().max() < 2**-8 * expected.abs().max()  # what is fused is rounded to float16 less often
