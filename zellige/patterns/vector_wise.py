"""What vector-wise patterns have in common: one pattern says what is kept coarsely, and inside of that n of every m columns stay.

Both parts share the sparsity: n ÷ m of what the outer pattern keeps is left in the end.
"""

from __future__ import annotations

from fractions import Fraction
from math import isclose

from zellige.errors import PruneError
from zellige.patterns.fixed_share import WRITTEN
from zellige.patterns.nm import NM
from zellige.patterns.pattern import Pattern


class VectorWise(Pattern):
    """A pattern that keeps ``n`` of every ``m`` columns, in each row, of what another one keeps."""

    n: int
    m: int

    @property
    def inside(self) -> NM:
        """What decides among the columns that were kept."""
        return NM(self.n, self.m)

    def check(self, sparsity: float) -> Fraction:
        asked, least = super().check(sparsity), self.inside.sparsity
        if asked < least and not isclose(asked, least, rel_tol=WRITTEN):
            raise PruneError(f"{self} keeps {self.n} of every {self.m} columns in what it keeps: its sparsity is {float(least):g} "
                             f"or more, and can't be {float(asked):g}.")
        return max(asked, least)

    def outer_sparsity(self, sparsity: Fraction) -> Fraction:
        """What the outer pattern takes, so that both together take ``sparsity``.

        >>> from zellige.patterns import TileVectorWise
        >>> TileVectorWise(128, 2, 4).outer_sparsity(Fraction(3, 4))
        Fraction(1, 2)
        """
        return 1 - (1 - sparsity) / (1 - self.inside.sparsity)
