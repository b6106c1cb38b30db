"""The table of verbs. A new verb is a file with one function, and a row here."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Annotated

import typer

from zellige.cli.bench import bench
from zellige.cli.codegen import codegen
from zellige.cli.compile import compile_model
from zellige.cli.demo import demo
from zellige.cli.doctor import doctor
from zellige.cli.estimate import estimate
from zellige.cli.finetune import finetune
from zellige.cli.inspect import inspect_model
from zellige.cli.profile import profile
from zellige.cli.prune import prune
from zellige.cli.run import run
from zellige.cli.simulate import simulate
from zellige.cli.verify import verify

VERBS: dict[str, Callable[..., None]] = {
    "prune": prune,
    "finetune": finetune,
    "compile": compile_model,
    "run": run,
    "bench": bench,
    "profile": profile,
    "verify": verify,
    "inspect": inspect_model,
    "estimate": estimate,
    "codegen": codegen,
    "simulate": simulate,
    "doctor": doctor,
    "demo": demo,
}

application = typer.Typer(
    name="zellige",
    help="Prune networks in hardware-shaped tiles, and compile them to code in which missing tiles cost nothing.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

for name, verb in VERBS.items():
    application.command(name)(verb)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"zellige {importlib.metadata.version('zellige')}")
        raise typer.Exit


@application.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options that belong to no verb."""
