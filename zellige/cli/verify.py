"""``zellige verify``: is the compiled network right?"""

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
from zellige.cli.network import EngineChoice, NetworkChoice
from zellige.errors import VerificationError
from zellige.terminal import working, write_json


def verify(
    model: Model,
    engine_file: Annotated[
        Path | None,
        typer.Option("--engine", help="A .zlg file made from this very model.", show_default="compile it now"),
    ] = None,
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
    tolerance: Annotated[float, typer.Option(min=0.0, help="Largest error allowed, of the largest output.")] = 1e-4,
    json: Json = None,
) -> None:
    """Compare the compiled MODEL with PyTorch in float64 on the same weights; fail if it is off by too much."""
    import zellige as zl

    network = NetworkChoice(model, weights, batch, shape, pattern, sparsity, scope, score)
    named = network.load()
    network.prune(named)
    choice = EngineChoice(target, dtype, threads, winograd, tune)
    engine = choice.compile(named) if engine_file is None else choice.load(engine_file)
    with working("comparing with float64"):
        found = zl.verify(named.model, engine, named.example_inputs)
    facts = {
        "model": named.name,
        "weights": named.weights,
        "max_absolute_error": found.max_absolute_error,
        "max_relative_error": found.max_relative_error,
        "tolerance": tolerance,
    }
    write_json(json, facts)
    if not found.max_relative_error <= tolerance:
        raise VerificationError(
            f"{named.name} is off by {found.max_relative_error:.2e} of the largest output; allowed are {tolerance:.0e}"
        )
    print(f"weights: {named.weights}")
    print(f"largest absolute error {found.max_absolute_error:.2e}")
    print(f"largest relative error {found.max_relative_error:.2e} of the largest output (allowed: {tolerance:.0e})")
