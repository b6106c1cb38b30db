"""``zellige demo``: the whole way on real images, in a few minutes, with nothing downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zellige.cli.arguments import Json, Threads
from zellige.terminal import write_json


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory for what the demo makes.")] = Path(
        "demo-output"
    ),
    threads: Threads = None,
    json: Json = None,
) -> None:
    """Train a small network on handwritten digits, prune, fine-tune, compile, verify and bench it; then ResNet-50."""
    from zellige.demo.story import tell

    write_json(json, tell(output, threads))
