"""Which weights go: scores, allocation over layers, selection of layers, and the report on what was done."""

from zellige.prune.budget import Price
from zellige.prune.hessian import Hessian
from zellige.prune.prune import prune
from zellige.prune.report import Amounts, LayerReport, PruneReport

__all__ = ["Amounts", "Hessian", "LayerReport", "Price", "PruneReport", "prune"]
