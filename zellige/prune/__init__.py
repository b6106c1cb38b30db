"""Which weights go: scores, allocation over layers, selection of layers, and the report on what was done.

The package bears the name of its one public function, and ``zellige.prune`` must mean the function whether or not the
package was imported before; so the package can be called like it.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from zellige.prune.budget import Price
from zellige.prune.hessian import Hessian
from zellige.prune.prune import prune
from zellige.prune.report import Amounts, LayerReport, PruneReport

__all__ = ["Amounts", "Hessian", "LayerReport", "Price", "PruneReport", "prune"]


class _CallablePackage(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> PruneReport:
        return prune(*arguments, **options)


sys.modules[__name__].__class__ = _CallablePackage
