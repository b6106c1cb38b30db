"""The arguments that several verbs share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zellige.errors import ZelligeError
from zellige.pack.atomic import check_place


def writable(path: Path | None) -> Path | None:
    """A file that is to be written: whether it can be is asked before the work and not after it."""
    if path is not None:
        check_place(path)
    return path


def creatable(path: Path | None) -> Path | None:
    """A directory that is to be made: the one around it must be there."""
    if path is not None and not path.absolute().parent.is_dir():
        raise ZelligeError(f"can't save to {path}: there is no directory {path.parent}")
    return path


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="torchvision:resnet50, timm:NAME, hf:NAME_OR_DIR, python:PACKAGE.MODULE:FACTORY, or a .pt2 file.",
        show_default=False,
    ),
]
ModelOrFile = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A model, as for prune, or a compiled .zlg file, which takes --target (a CPU), --threads and --tune alone.",
        show_default=False,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(help="A state dict to load: safetensors, or a torch file read with weights_only.", show_default=False),
]
Batch = Annotated[int, typer.Option(min=1, help="Samples per call.")]
Shape = Annotated[
    str | None,
    typer.Option(help="An input's shape without the batch, such as 3,224,224.", show_default="the model's own"),
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads.", show_default="the CPUs this process may use")
]
PatternText = Annotated[str | None, typer.Option("--pattern", help="Prune first, in this pattern: block:8x8, tile:128, nm:2:4, …")]
Sparsity = Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Share of blocks to prune in every layer.")]
Scope = Annotated[
    str, typer.Option(help="layer: the same share of every layer; global: one threshold over all; erk: by each layer's form.")
]
Score = Annotated[str, typer.Option(help="What a block is worth: l1, l2 or variance.")]
Dtype = Annotated[
    str | None, typer.Option(help="Type to compute in: f32 on CPUs, bf16 or f16 on GPUs.", show_default="f32, on GPUs bf16")
]
Target = Annotated[str, typer.Option(help="What to compile for: cpu, cpu:NAME, or cuda, the current NVIDIA GPU.")]
Winograd = Annotated[bool, typer.Option("--winograd/--no-winograd", help="Let 3×3 layers use Winograd's algorithm.")]
Tune = Annotated[str, typer.Option(help="How paths are chosen: model (by cost model) or measure (by timing).")]
BreakEvenFlag = Annotated[bool, typer.Option("--break-even", help="Say from which sparsity on each layer would gain.")]
Calibrate = Annotated[bool, typer.Option("--calibrate", help="Fit the cost model to this machine, on its idle CPUs: seconds.")]
Json = Annotated[
    Path | None, typer.Option("--json", help="Write the result as JSON too.", show_default=False, callback=writable)
]


def parse_shape(text: str | None) -> tuple[int, ...] | None:
    """``3,224,224`` or ``3x224x224`` as numbers; wrong usage for anything else.

    >>> parse_shape("3,32,32")
    (3, 32, 32)
    """
    if text is None:
        return None
    try:
        sizes = tuple(int(size) for size in text.replace("x", ",").split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise typer.BadParameter(f"expected sizes such as 3,224,224, got {text!r}", param_hint="--shape")
    return sizes


def parse_list(text: str | None) -> list[str]:
    """What stands between commas; nothing for ``None``, wrong usage where there is nothing between two of them.

    >>> parse_list("block:8x8, nm:2:4"), parse_list(None)
    (['block:8x8', 'nm:2:4'], [])
    """
    parts = [] if text is None else [part.strip() for part in text.split(",")]
    if not all(parts):
        raise typer.BadParameter(f"expected names with commas between them, got {text!r}")
    return parts


def parse_sparsities(text: str | None) -> list[float]:
    """``0.5`` or ``0.5,0.75`` as numbers; wrong usage for anything else than numbers from 0 to 1.

    >>> parse_sparsities("0.5,0.75")
    [0.5, 0.75]
    """
    try:
        shares = [float(part) for part in parse_list(text)]
    except ValueError:
        shares = [-1.0]
    if not all(0 <= share <= 1 for share in shares):
        raise typer.BadParameter(f"expected shares from 0 to 1, such as 0.5, got {text!r}", param_hint="--sparsity")
    return shares


def parse_budget(text: str | None, sparsity: float | None) -> dict[str, float] | None:
    """``latency=0.5`` as a budget, beside which there is no sparsity; wrong usage for anything else.

    >>> parse_budget("bytes=0.4", None)
    {'bytes': 0.4}
    """
    if (text is None) == (sparsity is None):
        raise typer.BadParameter("expected one of --sparsity and --budget", param_hint="--sparsity")
    if text is None:
        return None
    kind, _, share = text.partition("=")
    try:
        return {kind: float(share)}
    except ValueError:
        raise typer.BadParameter(f"expected latency=0.5 or bytes=0.4, got {text!r}", param_hint="--budget") from None


def both_or_neither(pattern: str | None, sparsity: float | None) -> None:
    """A pattern needs a sparsity, and the other way round; wrong usage otherwise."""
    if (pattern is None) != (sparsity is None):
        given, lacking = ("--pattern", "--sparsity") if sparsity is None else ("--sparsity", "--pattern")
        raise typer.BadParameter(f"{given} needs {lacking} beside it")
