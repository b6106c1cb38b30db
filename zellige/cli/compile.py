"""``zellige compile``: a network becomes one .zlg file, or an object file for a machine of another kind."""

from __future__ import annotations

import time
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
    writable,
)
from zellige.cli.network import COMPILED, OBJECT, EngineChoice, NetworkChoice
from zellige.errors import UnsavedEngineError
from zellige.terminal import write_json


def compile_model(
    model: Model,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", callback=writable,
                     help="Where to write the compiled network: .zlg, or .o for an object file and its header."),
    ],
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
    json: Json = None,
) -> None:
    """Compile MODEL for its input shape, and write it to a file that runs without PyTorch.

    A .zlg file runs wherever Zellige is installed. A .o file holds machine code for TARGET alone, to be linked into a C program; a
    header is written beside it.
    """
    if output.suffix not in (COMPILED, OBJECT):
        raise typer.BadParameter(f"expected a name that ends in {COMPILED} or {OBJECT}, got {output}", param_hint="-o")
    choice = EngineChoice(target, dtype, threads, winograd, tune)
    choice.check()
    if choice.is_gpu:
        raise UnsavedEngineError(output)
    network = NetworkChoice(model, weights, batch, shape, pattern, sparsity, scope, score)
    named = network.load()
    network.prune(named)
    started = time.perf_counter()
    if output.suffix == OBJECT:
        choice.export(named, output)
    else:
        choice.compile(named).save(output)
    seconds = time.perf_counter() - started
    size = output.stat().st_size
    facts = {
        "model": named.name,
        "weights": named.weights,
        "pattern": pattern,
        "sparsity": sparsity,
        "file": str(output),
        "file_bytes": size,
        "compile_s": seconds,
    }
    write_json(json, facts)
    print(f"weights: {named.weights}")
    print(f"compiled in {seconds:.1f} s, written to {output} ({size / 1e6:.1f} MB)")
