"""Studies: many ways to prune one network, compared by what they keep, what they answer and how fast they run.

``axes`` holds the tables of what can be varied, ``trial`` the grid, ``run`` goes through it, ``speed`` times it, ``study`` is the
result, ``plot`` draws it.
"""

from zellige.study.run import compare
from zellige.study.study import Row, Speed, Study
from zellige.study.trial import LeftOut, Trial

__all__ = ["LeftOut", "Row", "Speed", "Study", "Trial", "compare"]
