"""Zellige: structured weight sparsity that is really faster.

Prune a network in hardware-shaped tiles, and compile it to code in which the missing tiles cost nothing:

    import zellige as zl

    report = zl.prune(model, zl.Block(8, 8), sparsity=0.5, example_inputs=(x,))
    engine = zl.compile(model, (x,))
    y = engine(x)

What needs PyTorch is imported when it is first used: loading and running a compiled network does not.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from zellige.errors import ZelligeError
from zellige.version import __version__

if TYPE_CHECKING:
    from zellige.api import compile, export, prune, verify
    from zellige.engine import Engine, load
    from zellige.patterns import (
        NM,
        VNM,
        Block,
        Channel,
        TileElementWise,
        TileVectorWise,
        TileWise,
        Unstructured,
        parse_pattern,
    )
    from zellige.prune import PruneReport

__all__ = [
    "NM", "VNM", "Block", "Channel", "Engine", "PruneReport", "TileElementWise", "TileVectorWise", "TileWise", "Unstructured",
    "ZelligeError", "__version__", "compile", "export", "load", "parse_pattern", "prune", "verify",
]

_HOMES = {
    "compile": "zellige.api", "export": "zellige.api", "verify": "zellige.api",
    "Engine": "zellige.engine", "load": "zellige.engine",
    **dict.fromkeys(("Block", "Channel", "NM", "TileElementWise", "TileVectorWise", "TileWise", "Unstructured", "VNM",
                     "parse_pattern"), "zellige.patterns"),
    "PruneReport": "zellige.prune",
}


class _Package(ModuleType):
    """``zellige.prune`` is the API's function, before and after the package of that name was imported."""

    def _prune(self) -> Any:
        return import_module("zellige.api").prune

    def _imported(self, package: ModuleType) -> None:
        """The import system sets the package here; it is found in ``sys.modules``."""

    if not TYPE_CHECKING:
        prune = property(_prune, _imported)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zellige' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, "prune"})
