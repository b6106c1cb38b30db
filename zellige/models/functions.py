"""Functions of a user's own, by name: ``PACKAGE.MODULE:FUNCTION``. The working directory can be imported from."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zellige.errors import ZelligeError, in_one_line


def find_function(name: str, prefix: str, example: str) -> Callable[..., Any]:
    """The function of that name; ``prefix`` is what stands before it where a user wrote it, ``example`` a name that would do.

    Raises ``ZelligeError`` if it can't be found.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ZelligeError(f"{prefix}{name}: expected {prefix}PACKAGE.MODULE:FUNCTION, such as {prefix}{example}")
    with working_directory_first():
        try:
            module = importlib.import_module(module_name)
        except Exception as error:  # whatever the user's code raises
            raise ZelligeError(f"{prefix}{name}: {module_name} can't be imported: {in_one_line(error)}") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise ZelligeError(f"{prefix}{name}: {module_name} has no function {attribute!r}")
    found: Callable[..., Any] = function
    return found


def call_function(function: Callable[[], Any], name: str) -> Any:
    """What the function gives when called without arguments; ``name`` is how a user wrote it.

    Raises ``ZelligeError`` for whatever it raises.
    """
    with working_directory_first():
        try:
            return function()
        except Exception as error:  # whatever the user's code raises
            raise ZelligeError(f"{name} failed, called without arguments: {in_one_line(error)}") from error


@contextmanager
def working_directory_first() -> Iterator[None]:
    """In here, what is in the working directory is imported before anything else."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
