"""``zellige bench``: prune, compile, verify, and time beside the best dense engines."""

from __future__ import annotations

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
from zellige.terminal import show, working, write_json


def bench(
    model: Model,
    weights: Weights = None,
    pattern: PatternText = None,
    sparsity: Sparsity = None,
    scope: Scope = "layer",
    score: Score = "l1",
    batch: Batch = 1,
    shape: Shape = None,
    target: Target = "cpu",
    threads: Threads = None,
    dtype: Dtype = None,
    winograd: Winograd = True,
    tune: Tune = "model",
    against: Annotated[
        str | None,
        typer.Option(
            help="Rivals, with commas: onnxruntime,openvino,ncnn,torch,torch-compile; on GPUs the last two. "
            "Each must then take part.",
            show_default="all that can run here",
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; each gives every engine its turn.")] = 15,
    json: Json = None,
) -> None:
    """Compare MODEL, pruned and compiled, with dense engines: same inputs, same threads or same GPU, same run, checked answers.

    Without --pattern the network is taken as it is.
    """
    from zellige.bench.compare import compare
    from zellige.bench.subject import as_it_is, pruned_subject
    from zellige.patterns import parse_pattern

    rivals = None if against is None else [name.strip() for name in against.split(",") if name.strip()]
    if rivals == []:
        raise typer.BadParameter(f"expected names with commas between them, got {against!r}", param_hint="--against")
    EngineChoice(target, dtype, threads, winograd, tune).check()
    network = NetworkChoice(model, weights, batch, shape, pattern, sparsity, scope, score)
    named = network.load()
    with working("preparing") as progress:
        if pattern is None or sparsity is None:
            subject = as_it_is(named)
        else:
            subject = pruned_subject(named, parse_pattern(pattern), sparsity, scope, score)
        comparison = compare(subject, threads, dtype, rivals, rounds, winograd, tune, target, progress)
    write_json(json, comparison.as_dict())
    for table in comparison.tables():
        show(table)
    print(comparison.summary())
