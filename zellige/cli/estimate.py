"""``zellige estimate``: what a network should take on an array of AI Engines, dense and pruned, layer by layer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zellige.bench.table import Column, Table
from zellige.cli.arguments import Json, Model, PatternText, Scope, Score, Shape, Sparsity, Weights, writable
from zellige.cli.network import NetworkChoice
from zellige.cli.overlay import Calibration, Data, Device, EngineTarget, OverlayChoice
from zellige.terminal import show, working, write_json

if TYPE_CHECKING:
    from zellige.aie2.estimate.network import NetworkTime
    from zellige.aie2.overlay import Overlay
    from zellige.graph.quantized import QuantizedGraph

DENSE, AS_GIVEN = "dense", "as given"
"""What a network is called that isn't pruned here: by whether it has no blocks of zeros, or some."""


@dataclass(frozen=True)
class Layer:
    """A phase, and what it would take in the network that was given; as ``dense_ms`` too, if that is dense."""

    name: str
    op: str
    ms: float
    given_ms: float
    dense_ms: float | None
    bound: str

    @property
    def ratio(self) -> float:
        return self.given_ms / self.ms if self.ms else 1.0


def estimate(
    model: Model,
    target: EngineTarget = "aie2:4x4",
    device: Device = "ve2802",
    ddr_gbps: Annotated[
        float | None, typer.Option(min=0.001, help="Gigabytes a second of external memory.", show_default="the device's")
    ] = None,
    weights: Weights = None,
    pattern: PatternText = None,
    sparsity: Sparsity = None,
    scope: Scope = "layer",
    score: Score = "l1",
    shape: Shape = None,
    timeline: Annotated[
        Path | None, typer.Option("--timeline", callback=writable, show_default=False,
                                  help="Draw when every core and channel is busy: a .svg, .png or .pdf file.")
    ] = None,
    calibration: Calibration = "minmax",
    data: Data = None,
    json: Json = None,
) -> None:
    """Estimate the time of MODEL on AI Engines, in int8 at batch 1, and what bounds each layer; with --pattern as given and pruned.

    A network without blocks of zeros is dense, and runs by a kernel that loads no offsets.

    These are a model's numbers: nothing here has run on a chip.
    """
    from zellige.aie2.lowering.zero_blocks import zero_blocks

    choice = OverlayChoice(target, device, calibration, data)
    on = choice.overlay
    if ddr_gbps is not None:
        on = replace(on, device=replace(on.device, ddr_bytes=ddr_gbps * 1e9))
    network = NetworkChoice(model, weights, 1, shape, pattern, sparsity, scope, score)
    named = network.load()
    batches = choice.batches(named)
    whole = choice.quantize(named, batches)
    called = AS_GIVEN if zero_blocks(whole) else DENSE
    given = _time(whole, on, called)
    pruned = given
    if network.prune(named) is not None:
        pruned = _time(choice.quantize(named, batches), on, "pruned")
    before = {phase.name: given.ms(phase) for phase in given.phases}
    layers = [Layer(phase.name, pruned.operators[phase.name], pruned.ms(phase), before[phase.name],
                    before[phase.name] if called == DENSE else None, phase.bound) for phase in pruned.phases]  # fmt: skip
    ddr = on.device.ddr_bytes
    write_json(json, {
        "model": named.name, "weights": named.weights, "pattern": pattern, "sparsity": sparsity, "overlay": str(on),
        "clock_hz": on.device.clock, "ddr_gbps": None if ddr is None else ddr / 1e9, "given": called,
        "given_total_ms": given.total_ms, "dense_total_ms": given.total_ms if called == DENSE else None,
        "total_ms": pruned.total_ms, "layers": [asdict(layer) for layer in layers]})  # fmt: skip
    if timeline is not None:
        from zellige.aie2.estimate.picture import timeline_figure

        with working("drawing"):
            timeline_figure(pruned.run, on.device.clock, timeline)
    rows = tuple((layer.name, layer.op, f"{layer.ms:.4f}", f"{layer.given_ms:.4f}", f"{layer.ratio:.2f}", layer.bound)
                 for layer in layers)  # fmt: skip
    columns = (Column("layer"), Column("op"), Column("ms", numeric=True), Column(f"{called} ms", numeric=True),
               Column("ratio", numeric=True), Column("bound by"))  # fmt: skip
    show(Table(f"{named.name} on {on}: an estimate, from a model", columns, rows))
    print(f"weights: {named.weights}")
    print(f"estimated: {called} {given.total_ms:.3f} ms"
          + ("" if pruned is given else f", pruned {pruned.total_ms:.3f} ms, {given.total_ms / pruned.total_ms:.2f} times as fast"))


def _time(whole: QuantizedGraph, on: Overlay, called: str) -> NetworkTime:
    from zellige.aie2.estimate.network import network_time

    with working(f"estimating the network {called}"):
        return network_time(whole, on, called == DENSE)
