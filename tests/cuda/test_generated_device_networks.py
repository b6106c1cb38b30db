"""Generated networks of the layers that know both orders, lowered by any prices, against PyTorch in float64: layers that are read
by several and called again, results from the middle, weights without some of their rows and columns."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from network_prices import RuledPrices
from test_network import CPU, in_double
from torch import nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from zellige.cuda.engine import build, prepare
from zellige.cuda.network.capture import Direct
from zellige.cuda.network.layers import Layer

WIDTHS = (32, 48)
TOLERANCE = 8e-3
"""Of the largest number, in float16: each of up to ten layers rounds to 11 bits, and sums of them may cancel."""

OPERATORS = ("linear", "linear", "linear", "again", "norm", "activation", "add", "attention", "join", "part")
EMPTIED = {"nothing": (slice(0), slice(0)), "rows": (slice(1, None, 2), slice(None)), "columns": (slice(None), slice(0, None, 2)),
           "a corner": (slice(16), slice(16)), "everything": (slice(None), slice(None))}
"""Rows and columns of a weight that pruning took."""


class Generated(nn.Module):
    """``steps``: what is done, to which value, and with what beside it; ``results``: the values that come out."""

    def __init__(self, draw: st.DrawFn) -> None:
        super().__init__()
        self.layers, self.steps = nn.ModuleDict(), list[tuple[str, int, Any]]()
        widths = [draw(st.sampled_from(WIDTHS))]
        self.width = widths[0]
        for number in range(draw(st.integers(2, 9))):
            op = draw(st.sampled_from(OPERATORS))
            source = draw(st.sampled_from([len(widths) - 1, *range(len(widths))]))
            alike = [at for at, width in enumerate(widths) if width == widths[source]]
            called = [name for name, layer in self.layers.items() if isinstance(layer, nn.Linear)
                      and layer.in_features == widths[source]]
            made, beside, width = str(number), None, widths[source]
            if op == "linear" or (op == "again" and not called):
                width = draw(st.sampled_from([*WIDTHS, width]))
                layer = nn.Linear(widths[source], width, draw(st.booleans()))
                self.layers[made] = emptied(layer, draw(st.sampled_from([*EMPTIED])))
                op, beside = "call", made
            elif op == "again":
                op, beside = "call", draw(st.sampled_from(called))
                width = self.layers[beside].out_features
            elif op == "norm":
                self.layers[made] = nn.LayerNorm(width, bias=draw(st.booleans()))
                op, beside = "call", made
            elif op == "activation":
                beside = draw(st.sampled_from(["relu", "gelu", "silu", "softsign"]))
            elif op == "attention":
                self.layers[made] = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
                beside = made
            elif op == "part" and width > 16:
                width -= 16
            else:
                op = "join" if op == "join" else "add"
                beside = draw(st.sampled_from(alike if op == "add" else range(len(widths))))
                width += widths[beside] if op == "join" else 0
            self.steps.append((op, source, beside))
            widths.append(width)
        self.results = sorted({len(widths) - 1, *draw(st.lists(st.integers(0, len(widths) - 1), max_size=2))})

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values = [x]
        for op, source, beside in self.steps:
            values.append(getattr(self, op)(values[source], values[beside] if op in ("add", "join") else beside))
        return tuple(values[place] for place in self.results)

    def call(self, x: torch.Tensor, name: str) -> torch.Tensor:
        made: torch.Tensor = self.layers[name](x)
        return made

    def activation(self, x: torch.Tensor, name: str) -> torch.Tensor:
        made: torch.Tensor = getattr(functional, name)(x)
        return made

    def attention(self, x: torch.Tensor, name: str) -> torch.Tensor:
        parts = [made(x).unflatten(2, (2, -1)).transpose(1, 2) for made in self.layers[name]]  # type: ignore[operator, union-attr]
        return functional.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)

    def add(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return x + other

    def join(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, other], -1)

    def part(self, x: torch.Tensor, _: None) -> torch.Tensor:
        return x[..., 16:]


def emptied(layer: nn.Linear, what: str) -> nn.Linear:
    with torch.no_grad():
        layer.weight[EMPTIED[what]] = 0
    return layer


def assert_generated_runs(data: st.DataObject) -> None:
    torch.manual_seed(0)
    model = data.draw(st.composite(Generated)()).eval()
    x = torch.randn(*data.draw(st.sampled_from([(1, 1), (1, 4), (2, 5)])), model.width)
    way, known = data.draw(st.sampled_from(["dense", "columns", "groups", "steps"])), dict[Any, float]()

    def rule(layer: Layer, orders: tuple[str, str]) -> float:
        if (layer.names, orders) not in known:
            known[layer.names, orders] = data.draw(st.sampled_from([0.1, 1.0, 2.0]))
        return known[layer.names, orders]

    engine = build(prepare(model, (x,), torch.float16), CPU, RuledPrices(way, turn=0.05, rule=rule), Direct, time.perf_counter())
    for came, expected in zip(pytree.tree_leaves(engine(x)), in_double(model, (x,)), strict=True):
        assert came.shape == expected.shape
        assert (came - expected).abs().max() <= TOLERANCE * max(1.0, float(expected.abs().max()))


@settings(max_examples=10)
@given(st.data())
def test_generated_networks(data: st.DataObject) -> None:
    assert_generated_runs(data)


@pytest.mark.full
@settings(max_examples=150)
@given(st.data())
def test_many_generated_networks(data: st.DataObject) -> None:
    assert_generated_runs(data)
