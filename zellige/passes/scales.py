"""The scales of a network's values: which values share one, what each was seen to be, and what follows from that.

Concatenation, slicing, maxima and other moves copy steps from their inputs to their result, so all of these have one scale, and
moves cost no arithmetic and lose nothing. Values that share a scale share the histogram that it is chosen from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from zellige.errors import QuantizationError
from zellige.graph.ir import Graph
from zellige.passes.histogram import CALIBRATIONS, Histogram, power_of_two
from zellige.passes.int8_form import MOVES, TAILS, value_inputs

Array = np.ndarray
Execute = Callable[[Graph, Sequence[Array]], Sequence[Array]]
"""Runs a float graph on inputs and gives its outputs, as ``run_reference`` does; calibration asks for many outputs."""


@dataclass(frozen=True)
class Scheme:
    """How scales are chosen.

    ``calibration`` of activations is ``"minmax"`` (nothing that was seen saturates), ``"percentile"`` (of the magnitudes,
    ``percentile`` percent don't) or ``"mse"`` (the squared error of what was seen is least). With ``powers_of_two``, every scale
    is one, rescaling is a shift, and no sum on the way to a result needs more than 32 bits; else scales are free, and rescaling
    multiplies in fixed point. So many consecutive ``rows`` of a weight share a scale: 1 is a scale for every output channel, 8
    what suits units that shift eight channels alike, and ``None`` one for the whole weight.
    """

    calibration: str = "mse"
    percentile: float = 99.99
    powers_of_two: bool = False
    rows: int | None = 1

    def __post_init__(self) -> None:
        if self.calibration not in CALIBRATIONS:
            raise QuantizationError(f"calibration must be one of {', '.join(CALIBRATIONS)}, got {self.calibration!r}")
        if not 0 < self.percentile <= 100:
            raise QuantizationError(f"percentile must be above 0 and at most 100, got {self.percentile}")
        if self.rows is not None and self.rows < 1:
            raise QuantizationError(f"rows must be at least 1, or None for whole weights, got {self.rows}")

    def scale(self, seen: Histogram) -> float:
        """The scale of values that were seen so; 1.0 for those that were always zero."""
        if seen.largest == 0.0:
            return 1.0
        return CALIBRATIONS[self.calibration](seen, self.percentile, self.powers_of_two)

    def at_least(self, scales: Array) -> Array:
        """The least scales that the scheme allows which are no smaller than these."""
        return np.vectorize(power_of_two, otypes=[np.float64])(scales) if self.powers_of_two else scales


def scale_groups(graph: Graph) -> dict[str, str]:
    """For every value in int8, and every constant that is read as one, a name that stands for all that share its scale."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for name in graph.inputs:
        root(name)
    for node in graph:
        read = [root(name) for name in value_inputs(node)]
        if node.op in MOVES:
            for name in read:
                parent[root(name)] = root(node.name)
        elif node.op not in TAILS:
            root(node.name)
    return {name: root(name) for name in parent}


def observe(graph: Graph, groups: Mapping[str, str], batches: Iterable[Sequence[Array]], execute: Execute) -> dict[str, Histogram]:
    """What the values of every group were seen to be when ``execute`` ran the graph on ``batches``."""
    seen = {group: Histogram() for group in groups.values()}
    watched = [node.name for node in graph if node.name in groups and node.op not in MOVES]
    for name in groups:
        if name in graph.constants:
            _add(seen[groups[name]], name, graph.constants[name])
    for node in graph:
        if node.op == "pad" and node.attributes["mode"] == "constant":
            _add(seen[groups[node.name]], node.name, np.asarray(node.attributes["value"]))
    probe = replace(graph, outputs=tuple(watched), output_tree=None)
    runs = 0
    for batch in batches:
        runs += 1
        values = execute(probe, batch)
        if (len(batch), len(values)) != (len(graph.inputs), len(watched)):
            raise QuantizationError(f"graph {graph.name}: expected batches of {len(graph.inputs)} inputs and an executor that "
                                    f"gives {len(watched)} outputs, got {len(batch)} and {len(values)}")
        for name, value in zip((*graph.inputs, *watched), (*batch, *values), strict=True):
            _add(seen[groups[name]], name, value)
    if not runs:
        raise QuantizationError(f"graph {graph.name}: calibration needs at least one batch of inputs, got none")
    return seen


def _add(histogram: Histogram, name: str, value: Array) -> None:
    try:
        histogram.add(value)
    except QuantizationError as error:
        raise QuantizationError(f"value {name!r}: {error}") from None
