"""Zellige: structured weight sparsity that is really faster.

Prune a network in hardware-shaped tiles, and compile it to code in which the missing tiles cost nothing:

    import zellige as zl

    report = zl.prune(model, zl.Block(8, 8), sparsity=0.5, example_inputs=(x,))
    engine = zl.compile(model, (x,))
    y = engine(x)

What needs PyTorch is imported when it is first used: loading and running a compiled network does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from zellige.errors import ZelligeError
from zellige.version import __version__

if TYPE_CHECKING:
    from zellige.api import compile, estimate, export, prune, verify
    from zellige.engine import Engine, load
    from zellige.patterns import (
        NM,
        VNM,
        Block,
        BlockVectorWise,
        Channel,
        TileElementWise,
        TileVectorWise,
        TileWise,
        Unstructured,
        parse_pattern,
    )
    from zellige.prune import Clustering, PermuteReport, PruneReport, cluster, permute
    from zellige.prune.layer_sensitivity import Sensitivity, sensitivity
    from zellige.prune.statistics import take_statistics
    from zellige.study import Study, compare
    from zellige.train import Recipe, Sparsifier, finetune

__all__ = [
    "NM", "VNM", "Block", "BlockVectorWise", "Channel", "Clustering", "Engine", "PermuteReport", "PruneReport", "Recipe",
    "Sensitivity", "Sparsifier", "Study", "TileElementWise", "TileVectorWise", "TileWise", "Unstructured", "ZelligeError",
    "__version__", "cluster", "compare", "compile", "estimate", "export", "finetune", "load", "parse_pattern", "permute", "prune",
    "sensitivity", "take_statistics", "verify",
]

_HOMES = {
    **dict.fromkeys(("compile", "estimate", "export", "verify"), "zellige.api"),
    "Engine": "zellige.engine", "load": "zellige.engine",
    **dict.fromkeys(("Block", "BlockVectorWise", "Channel", "NM", "TileElementWise", "TileVectorWise", "TileWise", "Unstructured",
                     "VNM", "parse_pattern"), "zellige.patterns"),
    **dict.fromkeys(("Clustering", "PermuteReport", "PruneReport", "cluster", "permute", "prune"), "zellige.prune"),
    **dict.fromkeys(("Sensitivity", "sensitivity"), "zellige.prune.layer_sensitivity"),
    "take_statistics": "zellige.prune.statistics",
    **dict.fromkeys(("Study", "compare"), "zellige.study"),
    **dict.fromkeys(("Recipe", "Sparsifier", "finetune"), "zellige.train"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zellige' has no attribute {name!r}")
    home = import_module(_HOMES[name])
    if name == "prune":  # the package, which can be called: its modules are found under this name too
        return home
    value = getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
