"""``zellige prune``: zero the blocks that matter least, and save the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from zellige.cli.arguments import Json, Model, Scope, Score, Shape, Sparsity, Weights, parse_budget, writable
from zellige.cli.network import NetworkChoice
from zellige.terminal import working, write_json


def prune(
    model: Model,
    pattern: Annotated[str, typer.Option(help="What goes together: block:8x8, tile:128, nm:2:4, … (docs/pruning.md).")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Where to write the weights: a .safetensors file.", callback=writable)
    ],
    sparsity: Sparsity = None,
    budget: Annotated[
        str | None, typer.Option(help="In place of a sparsity: latency=0.5 or bytes=0.4, of the dense one's.", show_default=False)
    ] = None,
    weights: Weights = None,
    shape: Shape = None,
    scope: Scope = "layer",
    score: Score = "l1",
    ignore: Annotated[
        list[str] | None, typer.Option(help="Layers to leave alone: a name, or re:PATTERN. May be given again.")
    ] = None,
    targets: Annotated[
        list[str] | None, typer.Option("--target", help="Prune these layers only. May be given again.")
    ] = None,
    permute: Annotated[
        bool, typer.Option("--permute", help="Reorder channels first, so that the pattern keeps more; the network stays the same.")
    ] = False,
    json: Json = None,
) -> None:
    """Prune MODEL in tiles and write its weights, for --weights of the other verbs."""
    import zellige as zl
    from zellige.models import warm_statistics
    from zellige.models.weights import ORIGIN, SAFETENSORS, save_weights

    share = parse_budget(budget, sparsity)
    if permute and sparsity is None:
        raise typer.BadParameter("needs --sparsity beside it: what to keep depends on how much goes", param_hint="--permute")
    if output.suffix != SAFETENSORS:
        raise typer.BadParameter(f"expected a name that ends in {SAFETENSORS}, got {output}", param_hint="-o")
    named = NetworkChoice(model, weights, shape=shape).load()
    chosen: dict[str, Any] = {"targets": targets or None, "ignore": ignore or None}
    permuted = None
    if permute and sparsity is not None:
        with working("permuting") as tell:
            permuted = zl.permute(named.model, pattern, sparsity, named.example_inputs, progress=tell, **chosen)
    with working("pruning"):
        report = zl.prune(
            named.model,
            pattern,
            sparsity=sparsity,
            budget=share,
            example_inputs=named.example_inputs,
            scope=scope,
            score=score,
            **chosen,
        )
        if named.random_weights:
            warm_statistics(named.model, named.example_inputs)
    notes = {"model": named.name, "pattern": pattern, "sparsity": f"{report.sparsity:g}", ORIGIN: named.weights}
    size = save_weights(named.model, output, notes)
    found = {} if permuted is None else {"permutation": permuted.as_dict()}
    write_json(json, {"model": named.name, "weights": named.weights, "file": str(output), **report.as_dict(), **found})
    if permuted is not None:
        print(f"{permuted}\n")
    print(report)
    print(f"\nweights: {named.weights}\nwritten to {output} ({size / 1e6:.1f} MB)")
