"""Training that keeps the zeros: masks and what holds them, schemes, recipes, a loop, and callbacks for the loops of others."""

from zellige.train.choice import Choice, Wish
from zellige.train.data import Data, Samples
from zellige.train.distillation import Distillation
from zellige.train.finetune import FineTuning, finetune
from zellige.train.optimizers import OptimizerOptions
from zellige.train.recipe import Recipe
from zellige.train.sparsifier import Sparsifier
from zellige.train.training import SparseTraining

__all__ = [
    "Choice", "Data", "Distillation", "FineTuning", "OptimizerOptions", "Recipe", "Samples", "SparseTraining", "Sparsifier", "Wish",
    "finetune",
]
