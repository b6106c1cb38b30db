"""The command line: one file per verb, and ``main``, which the ``zellige`` command calls.

Exit status: 0 only if the verb did what it was asked, 1 for an error (one line on standard error), 2 for wrong usage.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence

from zellige.errors import ZelligeError

EXTRAS = {
    "typer": "cli",
    "rich": "cli",
    "torch": "torch",
    "safetensors": "torch",
    "accelerate": "train",
    "sklearn": "train",
    "yaml": "train",
    "matplotlib": "report",
    "torchvision": "models",
    "timm": "models",
    "transformers": "models",
}
"""Optional packages, and the extra that brings each of them."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb; always ends in ``SystemExit``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a × gets a question mark, and the verb its end
    try:
        from zellige.cli.application import application

        try:
            application(args=None if arguments is None else list(arguments), prog_name="zellige")
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # what can't be written is told here, not as a traceback when Python ends
    except ZelligeError as error:
        _fail(" ".join(str(error).split()))
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        _fail(f"{error.name} is not installed: pip install 'zellige[{EXTRAS[error.name]}]'")
    except OSError as error:
        if error.filename is not None or error.errno != errno.ENOSPC:  # a file's, which has a name, or no matter of writing
            raise
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())  # where what is left to write goes when Python ends
        _fail(f"standard output can't be written: {error.strerror or error}")


def _fail(message: str) -> None:
    print(f"zellige: {message}", file=sys.stderr)
    raise SystemExit(1)
