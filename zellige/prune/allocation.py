"""Which layers share a threshold.

``layer``: every layer is decided by itself, so each loses the same share.

``global``: all layers are decided together, and lose that share of what they have together.

How a threshold is found is the pattern's own matter (``Pattern.masks``). Among equals the earlier layer loses first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from zellige.errors import PruneError
from zellige.patterns import Pattern, Scored

Allocation = Callable[[Pattern, Sequence[Scored], float], list[torch.Tensor]]
"""Pattern, layers and sparsity in, the masks of the layers out."""


def within_layers(pattern: Pattern, layers: Sequence[Scored], sparsity: float) -> list[torch.Tensor]:
    """The masks when every layer loses its share."""
    return [mask for layer in layers for mask in pattern.masks([layer], sparsity)]


def across_layers(pattern: Pattern, layers: Sequence[Scored], sparsity: float) -> list[torch.Tensor]:
    """The masks when all layers compete."""
    return pattern.masks(layers, sparsity)


SCOPES: dict[str, Allocation] = {"layer": within_layers, "global": across_layers}


def scope_named(name: str) -> Allocation:
    """The allocation of that name.

    Raises:
        PruneError: there is none.
    """
    if not isinstance(name, str) or name not in SCOPES:
        raise PruneError(f"Unknown scope {name!r}. Known: {', '.join(SCOPES)}.")
    return SCOPES[name]
