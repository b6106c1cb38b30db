"""Which weights go: scores, allocation over layers, selection of layers, clustering, permutation, and the report on what was done.

The package bears the name of a public function, and ``zellige.prune`` must mean both, in whatever order things are imported;
so the package can be called, as the API's function, which knows more than this room does.
"""

from __future__ import annotations

import sys
from inspect import signature
from types import ModuleType
from typing import Any

from zellige.prune.budget import Price
from zellige.prune.clustering import Clustering, cluster
from zellige.prune.hessian import Hessian
from zellige.prune.permutation import PermuteReport, permute
from zellige.prune.prune import prune
from zellige.prune.report import Amounts, LayerReport, PruneReport

__all__ = ["Amounts", "Clustering", "Hessian", "LayerReport", "PermuteReport", "Price", "PruneReport", "cluster", "permute",
           "prune"]
__signature__ = signature(prune)  # what calling the package takes


class _CallablePackage(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> PruneReport:
        from zellige.api import prune

        return prune(*arguments, **options)


sys.modules[__name__].__class__ = _CallablePackage
