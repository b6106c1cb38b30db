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
from zellige.patterns import Pattern, Scored
from zellige.prune.erk import erk_sparsities

Allocation = Callable[[Pattern, Sequence[Scored], float], list[torch.Tensor]]
"""Pattern, layers and sparsity in, the masks of the layers out."""


def within_layers(pattern: Pattern, layers: Sequence[Scored], sparsity: float) -> list[torch.Tensor]:
    """The masks when every layer loses its share."""
    return [mask for layer in layers for mask in pattern.masks([layer], sparsity)]


def across_layers(pattern: Pattern, layers: Sequence[Scored], sparsity: float) -> list[torch.Tensor]:
    """The masks when all layers compete."""
    return pattern.masks(layers, sparsity)


def by_form(pattern: Pattern, layers: Sequence[Scored], sparsity: float) -> list[torch.Tensor]:
    """The masks when the form of a layer decides."""
    return apart(pattern, layers, erk_sparsities([layer.shape for layer in layers], pattern.check(sparsity)))


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


SCOPES: dict[str, Allocation] = {"layer": within_layers, "global": across_layers, "erk": by_form}


SENSITIVITY = "sensitivity"
"""The scope that is measured (``sensitivity.py``); it takes more than scores."""


def scope_named(name: str) -> Allocation:
    """The allocation of that name.

    Raises:
        PruneError: there is none.
    """
    if not isinstance(name, str) or name not in SCOPES:
        raise PruneError(f"Unknown scope {name!r}. Known: {', '.join((*SCOPES, SENSITIVITY))}.")
    return SCOPES[name]
