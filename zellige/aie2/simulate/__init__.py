"""The simulator: runs a tile program, and tells what would go wrong with it on a chip."""

from zellige.aie2.simulate.costs import Costs
from zellige.aie2.simulate.engine import EXTERNAL, Run, simulate

__all__ = ["EXTERNAL", "Costs", "Run", "simulate"]
