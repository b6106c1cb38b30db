"""Permutations of whole networks, folded into the weights: channels that share tensors move together."""

from zellige.prune.permutation.permute import permute
from zellige.prune.permutation.report import Fixed, GroupReport, LayerShare, PermuteReport
from zellige.prune.permutation.search import METHODS

__all__ = ["METHODS", "Fixed", "GroupReport", "LayerShare", "PermuteReport", "permute"]
