"""``zellige prune``: zero the blocks that matter least, and save the weights; or compare ways to do so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from zellige.cli.arguments import (
    Json,
    Model,
    Scope,
    Shape,
    Threads,
    Weights,
    parse_budget,
    parse_list,
    parse_sparsities,
    writable,
)
from zellige.cli.network import NetworkChoice
from zellige.cli.prune_compare import Question, calibration_named, compare_patterns
from zellige.terminal import working, write_json


def prune(
    model: Model,
    pattern: Annotated[
        str | None,
        typer.Option(help="What goes together: block:8x8, tile:128, nm:2:4, … (docs/pruning.md).", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Where to write the weights: a .safetensors file.", callback=writable,
                     show_default=False),
    ] = None,
    sparsity: Annotated[str | None, typer.Option(help="Share of blocks to prune in every layer.", show_default=False)] = None,
    budget: Annotated[
        str | None, typer.Option(help="In place of a sparsity: latency=0.5 or bytes=0.4, of the dense one's.", show_default=False)
    ] = None,
    weights: Weights = None,
    shape: Shape = None,
    scope: Scope = "layer",
    score: Annotated[str, typer.Option(help="What a block is worth: l1, l2, variance; with --data: taylor, fisher, …")] = "l1",
    solver: Annotated[
        str | None, typer.Option(help="Give new values to what stays, on --data: obs, fixed-order, admm.", show_default=False)
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="PACKAGE.MODULE:FUNCTION", show_default=False,
                     help="A function of yours that gives (batches, loss), for solvers, and scores and scopes that are measured."),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="Layers to leave alone: a name, or re:PATTERN. May be given again.")
    ] = None,
    targets: Annotated[
        list[str] | None, typer.Option("--target", help="Prune these layers only. May be given again.")
    ] = None,
    permute: Annotated[
        bool, typer.Option("--permute", help="Reorder channels first, so that the pattern keeps more; the network stays the same.")
    ] = False,
    compare: Annotated[
        bool,
        typer.Option("--compare", help="Write nothing; compare patterns, sparsities and scores, several of each with commas: "
                                       "L1 kept, speed, accuracy."),
    ] = False,
    evaluate: Annotated[
        str | None,
        typer.Option(metavar="PACKAGE.MODULE:FUNCTION", show_default=False,
                     help="With --compare: a function of yours that gives a network's accuracy."),
    ] = None,
    statistics: Annotated[
        bool, typer.Option("--statistics", help="With --compare: take batch-norm statistics again on --data after pruning.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(help="With --compare: draw what is lost against speed, .svg or .png.", show_default=False)
    ] = None,
    threads: Threads = None,
    json: Json = None,
) -> None:
    """Prune MODEL in tiles and write its weights, for --weights of the other verbs."""
    network = NetworkChoice(model, weights, shape=shape)
    if compare:
        _refuse("has no meaning beside --compare", {"-o": output, "--budget": budget, "--solver": solver})
        if statistics and data is None:
            raise typer.BadParameter("needs --data beside it", param_hint="--statistics")
        question = Question(parse_list(pattern), parse_sparsities(sparsity), parse_list(score), permute, scope, targets or None,
                            ignore or None, evaluate, data, statistics, threads)  # fmt: skip
        compare_patterns(network, question, plot, json)
        return
    idle = {"--evaluate": evaluate, "--statistics": statistics or None, "--plot": plot, "--threads": threads}
    _refuse("needs --compare beside it", idle)
    if pattern is None or output is None:
        raise typer.BadParameter("is missing", param_hint="--pattern" if pattern is None else "-o")
    shares = parse_sparsities(sparsity)
    if len(shares) > 1:
        raise typer.BadParameter("several need --compare beside them", param_hint="--sparsity")
    layers = {"targets": targets or None, "ignore": ignore or None}
    how = {"scope": scope, "score": score, "solver": solver}
    _prune(network, pattern, output, next(iter(shares), None), budget, layers, how, data, permute, json)


def _prune(
    network: NetworkChoice, pattern: str, output: Path, sparsity: float | None, budget: str | None, layers: dict[str, Any],
    how: dict[str, Any], data: str | None, permute: bool, json: Path | None,
) -> None:  # fmt: skip
    """Prune which layers, how, after permuting if asked, and write the weights."""
    import zellige as zl
    from zellige.models import warm_statistics
    from zellige.models.weights import ORIGIN, SAFETENSORS, check_savable, save_weights

    share = parse_budget(budget, sparsity)
    if permute and sparsity is None:
        raise typer.BadParameter("needs --sparsity beside it: what to keep depends on how much goes", param_hint="--permute")
    if output.suffix != SAFETENSORS:
        raise typer.BadParameter(f"expected a name that ends in {SAFETENSORS}, got {output}", param_hint="-o")
    batches, loss = (None, None) if data is None else calibration_named(data)
    named = network.load()
    check_savable(named.model)
    permuted = None
    if permute and sparsity is not None:
        with working("permuting") as tell:
            permuted = zl.permute(named.model, pattern, sparsity, named.example_inputs, progress=tell, **layers)
    with working("pruning") as tell:
        report = zl.prune(
            named.model,
            pattern,
            sparsity=sparsity,
            budget=share,
            example_inputs=named.example_inputs,
            data=batches,
            loss=loss,
            progress=tell,
            **layers,
            **how,
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


def _refuse(why: str, given: Mapping[str, object]) -> None:
    """Wrong usage if one of these options was given."""
    for name, value in given.items():
        if value is not None:
            raise typer.BadParameter(why, param_hint=name)
