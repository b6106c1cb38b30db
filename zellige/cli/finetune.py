"""``zellige finetune``: train a model by a recipe, zeros staying zero, and save the weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from zellige.cli.arguments import Json, Model, Shape, Weights, writable
from zellige.cli.network import NetworkChoice
from zellige.terminal import write_json


def finetune(
    model: Model,
    recipe: Annotated[Path, typer.Option(help="A YAML file that says what to prune and how to train (docs/training.md).")],
    data: Annotated[str, typer.Option(help="digits, imagefolder:PATH, text:PATH, hf:NAME_OR_DIRECTORY.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Where to write the weights: a .safetensors file.", callback=writable)
    ],
    weights: Weights = None,
    shape: Shape = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Where to keep how far things are.", show_default="beside the weights", callback=writable),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint, if there is one.")] = False,
    log: Annotated[Path | None, typer.Option(help="Write the figures of the run: a .csv or .json file.", callback=writable)] = None,
    tensorboard: Annotated[Path | None, typer.Option(help="Write them for TensorBoard, into this directory.")] = None,
    json: Json = None,
) -> None:
    """Train MODEL by a recipe and write its weights, for --weights of the other verbs. Starts under accelerate launch too."""
    import zellige as zl
    from zellige.models.weights import ORIGIN, SAFETENSORS, check_savable, save_weights

    if output.suffix != SAFETENSORS:
        raise typer.BadParameter(f"expected a name that ends in {SAFETENSORS}, got {output}", param_hint="-o")
    plan = zl.Recipe.read(recipe)
    named = NetworkChoice(model, weights, shape=shape).load()
    check_savable(named.model)
    if os.environ.get("RANK", "0") == "0":  # of several processes that a launcher started, the first
        print(f"{plan}\n", flush=True)
    kept = checkpoint or output.with_suffix(".checkpoint")
    result = zl.finetune(
        named.model,
        plan,
        data,
        checkpoint=kept,
        resume=resume and kept.exists(),
        log=log,
        tensorboard=None if tensorboard is None else str(tensorboard),
    )
    if not result.first:
        return
    notes = {"model": named.name, "data": result.data, "sparsity": f"{result.sparsity:g}",
             ORIGIN: f"fine-tuned on {result.data}, {named.weights} before"}
    size = save_weights(named.model, output, notes)
    write_json(json, {"model": named.name, "weights": named.weights, "file": str(output), **result.as_dict()})
    print(f"{result}\nwritten to {output} ({size / 1e6:.1f} MB)")
