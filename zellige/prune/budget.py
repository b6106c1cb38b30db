"""Sparsities for what matters to a user: the layers lose least, and the network costs no more than was asked.

The cost of a layer is a function of its density; what it costs besides, pruning can't change. Harm is the sum of scores that
go (``curves.py``) or, with scope ``sensitivity``, what the loss was measured to rise by. ``trade.py`` finds the best choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real

import numpy as np
from torch import nn

from zellige.errors import FAILURES, PruneError, in_one_line
from zellige.prune.curves import Curve
from zellige.prune.layers import Layer
from zellige.prune.trade import least_harm
from zellige.prune.usage import place

BYTES = "bytes"


@dataclass(frozen=True, eq=False)
class Price:
    """``cost(layer, density)`` of each layer by name, in seconds say; and ``whole``, the cost of the whole network when dense,
    in the same unit. A layer that costs nothing costs 0.

    Raises:
        PruneError: ``cost`` is no function, or ``whole`` no finite number above 0.
    """

    cost: Callable[[str, float], float]
    whole: float

    def __post_init__(self) -> None:
        if not callable(self.cost):
            raise PruneError(f"The cost in a Price is a function cost(layer, density), not {self.cost!r}.")
        if not isinstance(self.whole, Real) or not 0 < self.whole < math.inf:
            raise PruneError(f"The whole in a Price is what the dense network costs, a finite number above 0, not {self.whole!r}.")


@dataclass(frozen=True)
class Budget:
    """A share of what the dense network costs, and in which kind of cost."""

    kind: str
    share: float

    def __str__(self) -> str:
        return f"budget of {self.share:g} {self.kind}"

    @classmethod
    def of(cls, budget: Mapping[str, float], prices: Mapping[str, Price]) -> Budget:
        """Raises ``PruneError`` if that is not one share of one known cost."""
        if not isinstance(prices, Mapping) or not all(isinstance(price, Price) for price in prices.values()):
            raise PruneError(f"prices is a table from kinds of cost to Price(cost, whole), not {prices!r}.")
        known = (BYTES, *prices)
        if not isinstance(budget, Mapping) or len(budget) != 1:
            raise PruneError(f"A budget is one share of one cost, such as {{'bytes': 0.4}}, not {budget!r}.")
        ((kind, share),) = budget.items()
        if kind not in known:
            raise PruneError(f"Unknown cost {kind!r} in the budget. Known: {', '.join(known)}, and latency to zl.prune; others "
                             "come in as prices.")
        if not isinstance(share, Real) or isinstance(share, bool) or not 0 < share <= 1:
            raise PruneError(f"A budget is a share of what the dense network costs, above 0 and at most 1, not {share!r} {kind}.")
        return cls(kind, float(share))


def shares_within(budget: Budget, price: Price | None, model: nn.Module, layers: Sequence[Layer], curves: Sequence[Curve]
                  ) -> list[Fraction]:
    """The sparsities of least harm with which the model stays within its budget.

    Raises:
        PruneError: none do.
    """
    if price is None:
        costs, whole = [curve.at(curve.bytes) for curve in curves], float(parameter_bytes(model))
        dense = [float(layer.weight.numel() * layer.weight.element_size()) for layer in layers]
    else:
        whole = float(price.whole)
        costs = [_asked(price, layer, curve.at(curve.density)) for layer, curve in zip(layers, curves, strict=True)]
        dense = [float(_asked(price, layer, np.ones(1))[0]) for layer in layers]
    rest = whole - sum(dense)
    chosen = least_harm([_rising(curve) for curve in curves], costs, budget.share * whole - rest)
    if chosen is None:
        least = (rest + sum(float(cost.min()) for cost in costs)) / whole
        raise PruneError(f"A {budget} can't be had: at the highest sparsities tried ({float(curves[0].sparsities[-1]):.0%} of a "
                         f"layer) it still takes {least:.3f}, of which {rest / whole:.3f} is not in the layers that are pruned.")
    return [curve.choices[option] for curve, option in zip(curves, chosen, strict=True)]


def shares_by_weights(sparsity: Fraction, layers: Sequence[Layer], curves: Sequence[Curve]) -> list[Fraction]:
    """The sparsities of least harm with which the layers together lose this share of their weights.

    Raises:
        PruneError: that is more than what they can lose.
    """
    costs = [curve.at(curve.density) * layer.shape.weights for layer, curve in zip(layers, curves, strict=True)]
    total = sum(layer.shape.weights for layer in layers)
    chosen = least_harm([_rising(curve) for curve in curves], costs, float(1 - sparsity) * total)
    if chosen is None:
        raise PruneError(f"Sparsity {float(sparsity):g} is more than was measured: at most "
                         f"{1 - sum(float(cost.min()) for cost in costs) / total:.4g} can be shared out.")
    return [curve.choices[option] for curve, option in zip(curves, chosen, strict=True)]


def _rising(curve: Curve) -> np.ndarray:
    """The harm at each choice, never less than at a lower sparsity: where a measured loss falls, nothing is gained by it."""
    return np.maximum.accumulate(curve.at(curve.harm))


def parameter_bytes(model: nn.Module) -> int:
    """Bytes of all parameters, shared ones once."""
    sizes = {place(parameter): parameter.numel() * parameter.element_size() for parameter in model.parameters()}
    return sum(sizes.values())


def _asked(price: Price, layer: Layer, densities: np.ndarray) -> np.ndarray:
    """What a layer costs at each density, under all names that its weight goes by.

    Raises:
        PruneError: that is no finite number, or the function fails.
    """
    try:
        costs = np.array([sum(float(price.cost(name, float(density))) for name in layer.names) for density in densities])
    except FAILURES as error:
        raise PruneError(f"The cost of layer '{layer.name}' can't be had from its Price: {in_one_line(error)}") from error
    if not np.isfinite(costs).all() or costs.min() < 0:
        raise PruneError(f"The costs of layer '{layer.name}' lie between {costs.min()} and {costs.max()}; expected finite numbers "
                         "that are not negative.")
    return costs
