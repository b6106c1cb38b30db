"""``zellige compile``: a network becomes one .zlg file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zellige.cli.arguments import (
    Batch,
    Dtype,
    Json,
    Model,
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
from zellige.cli.network import COMPILED, EngineChoice, NetworkChoice
from zellige.cli.terminal import write_json


def compile_model(
    model: Model,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the compiled network (.zlg).")],
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
    """Compile MODEL for its input shape, and write it to a file that runs without PyTorch."""
    if output.suffix != COMPILED:
        raise typer.BadParameter(f"expected a name that ends in {COMPILED}, got {output}", param_hint="-o")
    network = NetworkChoice(model, weights, batch, shape, pattern, sparsity, scope, score)
    named = network.load()
    network.prune(named)
    engine = EngineChoice(target, dtype, threads, winograd, tune).compile(named)
    engine.save(output)
    size = output.stat().st_size
    facts = {
        "model": named.name,
        "weights": named.weights,
        "pattern": pattern,
        "sparsity": sparsity,
        "file": str(output),
        "file_bytes": size,
        "compile_s": engine.compile_seconds,
    }
    write_json(json, facts)
    print(f"weights: {named.weights}")
    print(f"compiled in {engine.compile_seconds:.1f} s, written to {output} ({size / 1e6:.1f} MB)")
