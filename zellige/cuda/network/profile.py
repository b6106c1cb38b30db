"""Where the time of a network on a GPU goes: every layer and operator timed in its place, beside what the prices promised.

A price was measured with inputs that come from memory; in its place a layer finds in the L2 cache what the one before it wrote, so
it may well be faster than its price. What a CPU's profile has beside these (shares of a peak, bandwidths, floors) needs measured
peaks and counted bytes, and is left out here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from torch import fx

from zellige.cuda.network.network import LayerPlan
from zellige.cuda.operators import features

PYTORCH = "an operator of PyTorch's"


@dataclass(frozen=True)
class ProfileRow:
    """One layer, or one operator between layers: what ran, why, and how fast.

    ``predicted_microseconds`` is what the layer took when it was timed alone for the choice of its way, and
    ``dense_microseconds`` what the dense one took then; None where nothing was timed. ``gflops`` counts the multiplications and
    additions of weights that are not zero.
    """

    name: str
    op: str
    pattern: str
    density: float
    path: str
    reason: str
    microseconds: float
    predicted_microseconds: float | None
    dense_microseconds: float | None
    gflops: float


@dataclass(frozen=True)
class Profile:
    """All steps in the order in which they run, each timed between events in one CUDA graph. ``whole_microseconds`` is what the
    engine's own graph takes, without events; ``form`` says whether it runs these steps as they are, or chains of them fused."""

    rows: tuple[ProfileRow, ...]
    whole_microseconds: float
    form: str
    device: str

    @property
    def total_microseconds(self) -> float:
        return sum(row.microseconds for row in self.rows)

    @property
    def priced_microseconds(self) -> tuple[float, float]:
        """What the layers that have a price took together, and what was predicted of them."""
        priced = [(row.microseconds, row.predicted_microseconds) for row in self.rows if row.predicted_microseconds is not None]
        return sum(took for took, _ in priced), sum(predicted for _, predicted in priced)

    def __str__(self) -> str:
        width, ways = (max([len(getattr(row, field)) for row in self.rows] + [5]) for field in ("name", "path"))
        head = (f"{'layer':{width}} {'op':16} {'path':{ways}} {'density':>7} {'µs':>9} {'price':>9} {'dense':>9} {'TFLOP/s':>8}"
                "  reason")
        lines = [f"{row.name:{width}} {row.op:16} {row.path:{ways}} {row.density:7.0%} {row.microseconds:9.1f} "
                 f"{_or_none(row.predicted_microseconds):>9} {_or_none(row.dense_microseconds):>9} {1e-3 * row.gflops:8.1f}  "
                 f"{row.reason}"
                 for row in self.rows]
        took, predicted = self.priced_microseconds
        return "\n".join([
            head, *lines,
            f"{self.total_microseconds:.0f} µs in all, one by one; the network's own graph {self.whole_microseconds:.0f} µs "
            f"({self.form}); {self.device}",
            f"layers with a price: {took:.0f} µs in their places, {predicted:.0f} µs when each was timed alone"])

    def to_json(self) -> dict[str, Any]:
        """A JSON value, with ``rows`` as dicts."""
        value: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return value | {"total_microseconds": self.total_microseconds}


def profile_steps(module: fx.GraphModule, plans: Sequence[LayerPlan], replay: Callable[[], dict[fx.Node, float]],
                  rounds: int) -> tuple[ProfileRow, ...]:
    """Medians over rounds of every step of a lowered network, whose layers are ``plans`` in their order."""
    laps = [replay() for _ in range(rounds + 1)][1:]
    layers = dict(zip(filter(is_layer, module.graph.nodes), plans, strict=True))
    return tuple(_row(node, layers.get(node), 1e6 * median(lap[node] for lap in laps)) for node in laps[0])


def is_layer(node: fx.Node) -> bool:
    """Whether a plan stands behind a node of a lowered graph: a module, or a convolution with a weight of its own."""
    convolution = node.target is torch.ops.aten.conv2d.default
    return node.op == "call_module" or (convolution and isinstance(node.args[1], fx.Node) and node.args[1].op == "get_attr")


def random_inputs(inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Normal numbers of the shapes and types; where these are whole numbers, zeros, which every table has a row for."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(x.shape, generator=generator).to(x) if x.is_floating_point() else torch.zeros_like(x) for x in inputs]


def _row(node: fx.Node, plan: LayerPlan | None, microseconds: float) -> ProfileRow:
    if plan is None:
        return ProfileRow(node.name, _op(node), "", 1.0, "", PYTORCH, microseconds, None, None, 0.0)
    return ProfileRow(plan.name, plan.op, plan.pattern, plan.density, plan.path, plan.reason, microseconds,
                      1e6 * plan.seconds or None, 1e6 * plan.dense_seconds or None,
                      2e-3 * plan.kept_macs / microseconds if microseconds else 0.0)


def _op(node: fx.Node) -> str:
    """What an operator between layers does, in a word."""
    if node.target is features.transposed:
        return "turn"
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target.overloadpacket.__name__
    return "copy" if node.op == "call_method" else str(getattr(node.target, "__name__", node.target))


def _or_none(microseconds: float | None) -> str:
    return "" if microseconds is None else f"{microseconds:.1f}"
