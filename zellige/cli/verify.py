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
    dtype: Dtype = None,
    threads: Threads = None,
    winograd: Winograd = True,
    tune: Tune = "model",
    tolerance: Annotated[
        float | None,
        typer.Option(min=0.0, help="Largest error allowed, of the largest output.", show_default="1e-4, in bf16 3e-2, in f16 4e-3"),
    ] = None,
    json: Json = None,
) -> None:
    """Compare the compiled MODEL with PyTorch in float64 on the same weights; fail if it is off by too much."""
    import zellige as zl
    from zellige.bench.accuracy import F32_TOLERANCE, HALF_TOLERANCES

    choice = EngineChoice(target, dtype, threads, winograd, tune)
    choice.check()
    if tolerance is None:
        tolerance = HALF_TOLERANCES[dtype or "bf16"] if choice.is_gpu else F32_TOLERANCE
    network = NetworkChoice(model, weights, batch, shape, pattern, sparsity, scope, score)
    named = network.load()
    network.prune(named)
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
