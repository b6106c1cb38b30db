"""How much goes: one sparsity and a scope, a table of sparsities, or a budget. Checked here, and turned into a share per layer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from torch import nn

from zellige.errors import PruneError
from zellige.patterns import Pattern
from zellige.patterns.shares import exact_sparsity
from zellige.prune.allocation import ALLOCATIONS, GLOBAL, SENSITIVITY, check_scope
from zellige.prune.budget import Budget, Price, shares_by_weights, shares_within
from zellige.prune.curves import Curve
from zellige.prune.cut import Cut
from zellige.prune.layers import Layer
from zellige.prune.table import sparsity_in

LAYER, TABLE = "layer", "table"
"""The scopes of a report in which every layer loses what a user wrote."""


@dataclass(frozen=True, eq=False)
class Amount:
    """What was asked for: of ``share``, ``table`` and ``limit`` there is one. A limit has a ``price``, unless it is of bytes."""

    scope: str
    targets: str | Sequence[str] | None
    share: Fraction | None = None
    table: Mapping[str, float] | None = None
    limit: Budget | None = None
    price: Price | None = None

    @classmethod
    def of(
        cls, pattern: Pattern, sparsity: float | Mapping[str, float] | None, scope: str, budget: Mapping[str, float] | None,
        prices: Mapping[str, Price] | None, targets: str | Sequence[str] | None,
    ) -> Amount:  # fmt: skip
        """The amount by the arguments of ``prune``.

        Raises:
            PruneError: they don't go together, or the pattern can't have such a sparsity.
        """
        check_scope(scope)
        if budget is not None:
            return cls._within(budget, {} if prices is None else prices, sparsity, scope, targets)
        if prices is not None:
            raise PruneError("prices are for a budget, such as budget={'energy': 0.5}; give one, or leave them out.")
        if isinstance(sparsity, Mapping):
            return cls._written_down(sparsity, pattern, scope, targets)
        if sparsity is None:
            raise PruneError("Sparsity is missing: give a share such as 0.5, a table of them by layer, or a budget.")
        pattern.check(sparsity)
        return cls(scope, targets, share=exact_sparsity(sparsity))

    @classmethod
    def _within(
        cls, budget: Mapping[str, float], prices: Mapping[str, Price], sparsity: float | Mapping[str, float] | None, scope: str,
        targets: str | Sequence[str] | None,
    ) -> Amount:  # fmt: skip
        """A budget, which decides by itself how much goes from each layer."""
        limit = Budget.of(budget, prices)
        if sparsity is not None or scope not in (LAYER, SENSITIVITY):
            raise PruneError("A budget says itself how much of each layer goes: give no sparsity beside it, and no scope but "
                             f"'{SENSITIVITY}'.")
        return cls(scope, targets, limit=limit, price=prices.get(limit.kind))

    @classmethod
    def _written_down(
        cls, table: Mapping[str, float], pattern: Pattern, scope: str, targets: str | Sequence[str] | None
    ) -> Amount:
        """A table of sparsities, whose names are the layers to prune."""
        if targets is not None or scope != LAYER:
            raise PruneError("A table of sparsities says itself which layers lose how much: leave out targets and scope beside it.")
        for name, share in table.items():
            try:
                pattern.check(share)
            except PruneError as error:
                raise PruneError(f"The table of sparsities has {share!r} for {name!r}. {error}") from None
        return cls(scope, tuple(table), table=table)

    @property
    def name(self) -> str:
        """What a report calls the scope."""
        if self.limit is not None:
            return f"{self.limit}, by {SENSITIVITY}" if self.measured else str(self.limit)
        return self.scope if self.table is None else TABLE

    @property
    def measured(self) -> bool:
        """Whether it is shared out by what the loss was measured to do."""
        return self.scope == SENSITIVITY

    @property
    def by_scores(self) -> bool:
        """Whether it is shared out by what layers hold, and not by their names and forms alone."""
        return self.limit is not None or self.scope in (GLOBAL, SENSITIVITY)

    @property
    def alike(self) -> bool:
        """Whether no layer can come out far sparser than a user wrote."""
        return self.name in (LAYER, TABLE)

    @property
    def sparsity(self) -> float:
        """The one sparsity of all layers together, for patterns, which take fractions as they are."""
        assert self.share is not None
        return self.share  # type: ignore[return-value]

    def shares(
        self, pattern: Pattern, model: nn.Module, layers: Sequence[Layer], curves: Sequence[Curve]
    ) -> Sequence[float | Fraction] | None:
        """The sparsity of each layer; none where one threshold serves all.

        Raises:
            PruneError: a budget, or a share of what was measured, can't be had; a table says several things of a layer.
        """
        if self.limit is not None:
            return shares_within(self.limit, self.price, model, layers, curves)
        if self.table is not None:
            return [sparsity_in(self.table, layer.names) for layer in layers]
        share = pattern.check(self.sparsity)
        if self.measured:
            return shares_by_weights(share, layers, curves)
        return None if self.scope == GLOBAL else ALLOCATIONS[self.scope]([layer.shape for layer in layers], share)

    def reported(self, cuts: Collection[Cut]) -> float:
        """The sparsity that was asked for or, where there are many, the share of blocks that go."""
        if self.share is not None:
            return float(self.share)
        return sum(cut.removed for cut in cuts) / sum(cut.blocks for cut in cuts)
