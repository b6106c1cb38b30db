"""``zellige inspect``: what the compiler decided, without running anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, cast

from zellige.bench.table import Column, Table
from zellige.cli.arguments import (
    Batch,
    BreakEvenFlag,
    Dtype,
    Json,
    ModelOrFile,
    PatternText,
    Scope,
    Score,
    Shape,
    Sparsity,
    Target,
    Threads,
    Tune,
    Weights,
    Winograd,
)
from zellige.cli.network import EngineChoice, NetworkChoice
from zellige.errors import ZelligeError
from zellige.terminal import show, working, write_json

if TYPE_CHECKING:
    from zellige.cpu.calls import LayerPlan
    from zellige.cuda.engine import CudaEngine
    from zellige.cuda.network.network import LayerPlan as GpuLayerPlan
    from zellige.graph.ir import Graph

SHOWN = (0.5, 0.75, 0.9)
KEYS = ("name", "op", "pattern", "density", "path", "reason")
COLUMNS = (Column("layer"), Column("op"), Column("pattern"), Column("density", numeric=True), Column("path"), Column("reason"))


def inspect_model(
    model: ModelOrFile,
    weights: Weights = None,
    pattern: PatternText = None,
    sparsity: Sparsity = None,
    scope: Scope = "layer",
    score: Score = "l1",
    batch: Batch = 1,
    shape: Shape = None,
    target: Target = "cpu",
    dtype: Dtype = None,
    threads: Threads = None,
    winograd: Winograd = True,
    tune: Tune = "model",
    break_even: BreakEvenFlag = False,
    json: Json = None,
) -> None:
    """Show, layer by layer, how MODEL would run and why: operator, pattern, density, path, reason.

    TARGET may be any CPU, whether this machine runs it or not; for cuda the network is compiled on the GPU here.
    """
    network = NetworkChoice(model, weights, batch, shape, pattern, sparsity, scope, score)
    choice = EngineChoice(target, dtype, threads, winograd, tune)
    if choice.is_gpu:
        if break_even:
            raise ZelligeError("--break-even asks the cost model of a CPU; for target cuda layers are timed: take profile")
        engine = cast("CudaEngine", choice.engine(network))
        show_layers(model, engine.form, engine.layers, json)
        return
    graph, plan, allowed = choice.plan(network)
    if break_even:
        show_break_even(model, graph, target, allowed, json)
        return
    show_layers(model, plan.batch, plan.layers, json)


def show_layers(model: str, how: str, plans: Sequence[LayerPlan | GpuLayerPlan], json: Path | None) -> None:
    """What was decided for each layer; ``how`` says how the network runs as a whole."""
    layers = [{key: getattr(row, key) for key in KEYS} for row in plans]
    write_json(json, {"model": model, "batch": how, "layers": layers})
    rows = tuple((row.name, row.op, row.pattern, f"{row.density:.2f}", row.path, row.reason) for row in plans)
    show(Table(": ".join(filter(None, (model, how))), COLUMNS, rows))


def show_break_even(model: str, graph: Graph, target: str, winograd: bool, json: Path | None) -> None:
    """Per layer, the sparsity from which 8×8 blocks would pay, and what they would bring: the model's word, nothing is pruned."""
    from zellige.cpu.break_even import LEVELS, break_even
    from zellige.cpu.compiler import find_isa
    from zellige.cpu.lower.lowering import Options

    with working("asking the planner"):
        found = break_even(graph, find_isa(target), Options(winograd=winograd))
    write_json(json, {"model": model, "levels": LEVELS, "layers": [asdict(row) for row in found]})
    columns = (Column("layer"), Column("op"), Column("dense path"), Column("gains from", numeric=True),
               *(Column(f"at {level:.0%}", numeric=True) for level in SHOWN))
    rows = tuple((row.name, row.op, row.path, "never" if row.sparsity is None else f"{row.sparsity:.0%}",
                  *(f"{row.speedups[LEVELS.index(level)]:.2f}×" for level in SHOWN)) for row in found)
    show(Table(f"{model}: estimated speed over dense of each layer, 8×8 blocks", columns, rows))
