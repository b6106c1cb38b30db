"""Training that keeps the zeros: masks and what holds them, schemes, recipes, a loop, and callbacks for the loops of others."""

from zellige.train.sparsifier import Sparsifier

__all__ = ["Sparsifier"]
