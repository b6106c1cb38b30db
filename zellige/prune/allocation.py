"""How much goes from each layer: which of them share a threshold, or what share each one loses.

``layer``: every layer is decided by itself, so each loses the same share.

``global``: all layers are decided together, and lose that share of what they have together.

``erk``: every layer is decided by itself, and loses a share that its form says (``erk.py``).

How a threshold is found is the pattern's own matter (``Pattern.masks``). Among equals the earlier layer loses first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import cast

import torch

from zellige.errors import PruneError
from zellige.patterns import Partition, Pattern, Scored, WeightShape
from zellige.prune.erk import erk_sparsities
from zellige.prune.layers import Layer

Allocation = Callable[[Sequence[WeightShape], Fraction], list[Fraction]]
"""The layers' shapes and the sparsity of all in, the sparsity of each out."""


def evenly(shapes: Sequence[WeightShape], sparsity: Fraction) -> list[Fraction]:
    """The same sparsity for every layer."""
    return [sparsity] * len(shapes)


def apart(pattern: Pattern, layers: Sequence[Scored], sparsities: Sequence[float | Fraction]) -> list[torch.Tensor]:
    """The masks when every layer has a sparsity of its own.

    Raises:
        PruneError: the pattern can't have one of them.
    """
    return [_mask(pattern, layer, share) for layer, share in zip(layers, sparsities, strict=True)]


def _mask(pattern: Pattern, layer: Scored, sparsity: float | Fraction) -> torch.Tensor:
    share = cast(float, sparsity)  # patterns take fractions as they are, and floats as they were written
    try:
        pattern.check(share)
    except PruneError as error:
        raise PruneError(f"Layer '{layer.name}' should have a sparsity of {float(share):.4g}. {error}") from None
    return pattern.masks([layer], share)[0]


ALLOCATIONS: dict[str, Allocation] = {"layer": evenly, "erk": erk_sparsities}
"""The scopes in which every layer is decided by itself."""

GLOBAL = "global"
"""The scope of one threshold for all layers."""

SENSITIVITY = "sensitivity"
"""The scope that is measured (``sensitivity.py``); it takes more than scores."""


def check_scope(name: str) -> None:
    """Refuses unknown names.

    Raises:
        PruneError: there is no such scope.
    """
    known = ("layer", GLOBAL, "erk", SENSITIVITY)
    if not isinstance(name, str) or name not in known:
        raise PruneError(f"Unknown scope {name!r}. Known: {', '.join(known)}.")


def attained(pattern: Pattern, layers: Sequence[Layer], masks: Sequence[torch.Tensor]) -> list[Fraction]:
    """The share of its blocks that each layer loses by its mask.

    Raises:
        PruneError: the pattern doesn't count blocks, so that a share of them says nothing.
    """
    if not isinstance(pattern, Partition):
        raise PruneError(f"Scope '{GLOBAL}' doesn't say what share of a layer {pattern} takes, which a solver needs; take another "
                         "scope, or a table of sparsities.")
    counts = [pattern.verify(mask, layer.shape.groups) for layer, mask in zip(layers, masks, strict=True)]
    return [Fraction(count.gone, count.blocks) for count in counts]
