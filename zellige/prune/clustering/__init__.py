"""Orders of rows and columns that bring small weights together: one weight at a time."""

from zellige.prune.clustering.cluster import Clustering, cluster
from zellige.prune.clustering.methods import METHODS

__all__ = ["METHODS", "Clustering", "cluster"]
