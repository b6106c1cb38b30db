"""ERK: density by a layer's form, Erdős–Rényi-Kernel (Evci et al., Rigging the lottery, arXiv 1911.11134).

A layer's density is proportional to the sum of its weight's dimensions over their product, so that what is large and square
loses most. One factor serves all layers, such that together they lose what was asked; a layer that the factor would make
denser than dense stays dense, and the others make up for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from zellige.patterns import WeightShape


def erk_sparsities(shapes: Sequence[WeightShape], sparsity: Fraction) -> list[Fraction]:
    """The sparsity of every layer, exact: weighted by their sizes their mean is ``sparsity``.

    >>> erk_sparsities([WeightShape((8, 8)), WeightShape((32, 32))], Fraction(1, 2))
    [Fraction(0, 1), Fraction(17, 32)]
    """
    kept = (1 - sparsity) * sum(shape.weights for shape in shapes)
    dense: set[int] = set()
    while True:
        left = [at for at in range(len(shapes)) if at not in dense]
        if not left:
            return [Fraction(0)] * len(shapes)
        factor = (kept - sum(shapes[at].weights for at in dense)) / sum(sum(shapes[at].dims) for at in left)
        full = {at for at in left if factor * sum(shapes[at].dims) > shapes[at].weights}
        if not full:
            return [Fraction(0) if at in dense else 1 - factor * sum(shape.dims) / shape.weights
                    for at, shape in enumerate(shapes)]
        dense |= full
