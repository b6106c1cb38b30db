"""``zellige estimate``: what a network should take on an array of AI Engines, dense and pruned, layer by layer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zellige.bench.table import Column, Table
from zellige.cli.arguments import Json, Model, PatternText, Scope, Score, Shape, Sparsity, Weights, writable
from zellige.cli.network import NetworkChoice
from zellige.cli.overlay import Device, EngineTarget, OverlayChoice
from zellige.terminal import show, working, write_json

if TYPE_CHECKING:
    from zellige.aie2.estimate.network import NetworkTime
    from zellige.aie2.overlay import Overlay
    from zellige.models import NamedModel

COLUMNS = (Column("layer"), Column("op"), Column("ms", numeric=True), Column("dense ms", numeric=True),
           Column("ratio", numeric=True), Column("bound by"))  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """A phase, and what it would take in the dense network."""

    name: str
    op: str
    ms: float
    dense_ms: float
    bound: str

    @property
    def ratio(self) -> float:
        return self.dense_ms / self.ms if self.ms else 1.0


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
    json: Json = None,
) -> None:
    """Estimate the time of MODEL on AI Engines, in int8 at batch 1, and what bounds each layer; with --pattern beside it dense.

    These are a model's numbers: nothing here has run on a chip.
    """
    choice = OverlayChoice(target, device, "minmax")
    on = choice.overlay
    if ddr_gbps is not None:
        on = replace(on, device=replace(on.device, ddr_bytes=ddr_gbps * 1e9))
    network = NetworkChoice(model, weights, 1, shape, pattern, sparsity, scope, score)
    named = network.load()
    dense = _time(choice, named, on, dense=True)
    pruned = dense
    if network.prune(named) is not None:
        pruned = _time(choice, named, on, dense=False)
    before = {phase.name: dense.ms(phase) for phase in dense.phases}
    layers = [Layer(phase.name, pruned.operators[phase.name], pruned.ms(phase), before[phase.name], phase.bound)
              for phase in pruned.phases]  # fmt: skip
    ddr = on.device.ddr_bytes
    write_json(json, {
        "model": named.name, "weights": named.weights, "pattern": pattern, "sparsity": sparsity, "overlay": str(on),
        "clock_hz": on.device.clock, "ddr_gbps": None if ddr is None else ddr / 1e9, "dense_total_ms": dense.total_ms,
        "total_ms": pruned.total_ms, "layers": [asdict(layer) for layer in layers]})  # fmt: skip
    if timeline is not None:
        from zellige.aie2.estimate.picture import timeline_figure

        with working("drawing"):
            timeline_figure(pruned.run, on.device.clock, timeline)
    rows = tuple((layer.name, layer.op, f"{layer.ms:.4f}", f"{layer.dense_ms:.4f}", f"{layer.ratio:.2f}", layer.bound)
                 for layer in layers)  # fmt: skip
    show(Table(f"{named.name} on {on}: an estimate, from a model", COLUMNS, rows))
    print(f"weights: {named.weights}")
    print(f"estimated: dense {dense.total_ms:.3f} ms"
          + ("" if pruned is dense else f", pruned {pruned.total_ms:.3f} ms, {dense.total_ms / pruned.total_ms:.2f} times as fast"))


def _time(choice: OverlayChoice, named: NamedModel, on: Overlay, dense: bool) -> NetworkTime:
    from zellige.aie2.estimate.network import network_time

    whole, _ = choice.quantize(named)
    with working("estimating the dense network" if dense else "estimating"):
        return network_time(whole, on, dense)
