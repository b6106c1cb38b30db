"""``zellige inspect``: what the compiler decided, without running anything."""

from __future__ import annotations

from zellige.bench.table import Column, Table
from zellige.cli.arguments import (
    Batch,
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
from zellige.cli.terminal import show, write_json

KEYS = ("name", "op", "density", "path", "reason")
COLUMNS = (Column("layer"), Column("op"), Column("density", numeric=True), Column("path"), Column("reason"))


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
    dtype: Dtype = "f32",
    threads: Threads = None,
    winograd: Winograd = True,
    tune: Tune = "model",
    json: Json = None,
) -> None:
    """Show, layer by layer, how MODEL would run and why: operator, density, path, reason."""
    network = NetworkChoice(model, weights, batch, shape, pattern, sparsity, scope, score)
    engine = EngineChoice(target, dtype, threads, winograd, tune).engine(network)
    layers = [{key: getattr(row, key) for key in KEYS} for row in engine.layers]
    write_json(json, {"model": model, "layers": layers})
    rows = tuple((row.name, row.op, f"{row.density:.2f}", row.path, row.reason) for row in engine.layers)
    show(Table(model, COLUMNS, rows))
