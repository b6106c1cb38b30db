"""Features whose rows pruning has emptied: what comes of them is a constant, and the network answers as before without them."""

from __future__ import annotations

import pytest
import torch
from device_networks import Encoder
from torch import fx, nn

from zellige.cuda.engine import prepare
from zellige.cuda.network.constant_features import MULTIPLE
from zellige.cuda.network.layers import Linear, layer_of

WIDTH = 3 * MULTIPLE


def linears(model: nn.Module, x: torch.Tensor) -> list[Linear]:
    graph: fx.Graph = prepare(model.eval(), (x,), torch.float16).graph
    return [layer for node in graph.nodes if isinstance(layer := layer_of(node), Linear)]


def emptied(layer: nn.Linear, rows: slice) -> nn.Linear:
    with torch.no_grad():
        layer.weight[rows] = 0
    return layer


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU, nn.SiLU, nn.Identity])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dead, left", [(0, 3), (MULTIPLE - 1, 3), (MULTIPLE, 2), (MULTIPLE + 9, 2), (WIDTH, 1)])
def test_a_hidden_layer(activation: type[nn.Module], bias: bool, dead: int, left: int) -> None:
    torch.manual_seed(0)
    hidden = emptied(nn.Linear(20, WIDTH, bias=bias), slice(5, 5 + dead))
    model = nn.Sequential(hidden, activation(), nn.Linear(WIDTH, 7, bias=bias))
    first, second = linears(model, torch.randn(4, 20))
    assert first.weight.shape == (left * MULTIPLE, 20) and second.weight.shape == (7, left * MULTIPLE)
    x = torch.randn(4, 20)
    between = activation()(nn.functional.linear(x, first.weight, first.bias))
    torch.testing.assert_close(nn.functional.linear(between, second.weight, second.bias), model(x))


def test_values_of_attention() -> None:
    """Columns behind constant values are empty, and what they gave is in the bias."""
    torch.manual_seed(0)
    model = Encoder()
    emptied(model.value, slice(3, 11))
    stacked, out, *_ = linears(model, torch.randn(2, 5, 32))
    assert stacked.weight.shape == (96, 32) and out.bias is not None
    assert not out.weight[:, 3:11].any() and torch.equal(out.weight[:, 11:], model.out.weight[:, 11:])
    torch.testing.assert_close(out.bias, model.out.bias + model.out.weight[:, 3:11] @ model.value.bias[3:11])


class Twice(nn.Module):
    """A hidden layer that is a result as well, and one that is added to what comes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = emptied(nn.Linear(WIDTH, WIDTH), slice(0, 100)), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y, z = self.one(x), self.one(x + 1)
        return self.two(y) + y, z


def test_what_others_read_stays() -> None:
    found = linears(Twice(), torch.randn(2, WIDTH))
    assert len(found) == 3
    for layer in found:
        assert layer.weight.shape == (WIDTH, WIDTH) and (layer.weight != 0).any(0).all()
