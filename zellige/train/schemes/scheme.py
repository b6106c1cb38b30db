"""What a scheme answers: when masks are chosen, and what happens around the optimiser's steps.

A scheme is a dataclass: what its constructor takes are its options, which a recipe prints; what it gathers in a run is its state,
which a checkpoint keeps. It knows nothing of loops, data or processes: whoever trains calls the hooks of ``SparseTraining``, and
these call the scheme's. Between steps the model always holds what it would be used with: pruned weights are zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from zellige.errors import RecipeError, TrainingError
from zellige.patterns import Partition
from zellige.train.sharding import is_sharded

if TYPE_CHECKING:
    from zellige.train.choice import Wish
    from zellige.train.training import SparseTraining


@dataclass
class Scheme:
    """The base of all schemes; without hooks of its own, one does nothing."""

    needs_wish: ClassVar[bool] = True
    """Whether it prunes, and must be told what."""

    def check(self, wish: Wish | None) -> None:
        """Refuse options, or a wish, that can't be had.

        Raises:
            RecipeError: they can't.
        """
        if self.needs_wish and wish is None:
            raise RecipeError(f"scheme '{name_of(self)}' needs a pattern and a sparsity beside it")

    def begin(self, training: SparseTraining) -> None:
        """Before the first step."""

    def before_step(self, training: SparseTraining) -> None:
        """Gradients are there, the optimiser has not moved yet."""

    def after_step(self, training: SparseTraining) -> None:
        """The optimiser has moved; ``training.step`` steps are done now."""

    def wants_evaluation(self, training: SparseTraining) -> bool:
        """Whether it can't go on before it has heard of the accuracy."""
        return False

    def evaluated(self, training: SparseTraining, accuracy: float) -> None:
        """The accuracy as it is now."""

    def finish(self, training: SparseTraining) -> None:
        """After the last step."""

    def state_dict(self) -> dict[str, Any]:
        """What it gathered: plain data and tensors."""
        return {field.name: getattr(self, field.name) for field in fields(self) if not field.init}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` left off."""
        for name, value in state.items():
            setattr(self, name, value)


def free_blocks(scheme: Scheme, wish: Wish) -> Partition:
    """The pattern of a wish, for schemes that treat every block by itself.

    Raises:
        RecipeError: its blocks depend on one another.
    """
    if not isinstance(wish.pattern, Partition):
        raise RecipeError(f"scheme '{name_of(scheme)}' treats every block by itself, which {wish.pattern} doesn't allow; take "
                          "block, channel or unstructured")
    return wish.pattern


def one_sparsity(scheme: Scheme, wish: Wish) -> float:
    """The sparsity of a wish, for schemes that have one for all layers.

    Raises:
        RecipeError: it is a table.
    """
    if isinstance(wish.sparsity, Mapping):
        raise RecipeError(f"scheme '{name_of(scheme)}' takes one sparsity for all layers, not a table")
    return float(wish.sparsity)


def refuse_shards(scheme: Scheme, training: SparseTraining) -> None:
    """For schemes that need whole weights at every step.

    Raises:
        TrainingError: the model is in shards.
    """
    for name, parameter in training.parameters().items():
        if is_sharded(parameter):
            raise TrainingError(f"scheme '{name_of(scheme)}' needs whole weights, and '{name}' is in shards; train by data "
                                "parallelism, or take scheme 'fixed', 'gradual' or 'regrow'")


def refuse_frozen(scheme: Scheme, training: SparseTraining) -> None:
    """For schemes that learn what goes, of which a weight without gradients tells nothing.

    Raises:
        TrainingError: a weight that may be pruned is frozen.
    """
    for name, parameter in training.parameters().items():
        if not parameter.requires_grad:
            raise TrainingError(f"scheme '{name_of(scheme)}' learns what goes while it trains, and '{name}' is frozen "
                                "(requires_grad is False): name its layer in ignore, or take another scheme")


def name_of(scheme: Scheme) -> str:
    """What a recipe calls it."""
    return type(scheme).__name__.lower()


def check_share(name: str, value: float, *, least: float = 0.0, most: float = 1.0) -> None:
    """Refuse an option that is no number from ``least`` to ``most``.

    Raises:
        RecipeError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise RecipeError(f"{name} must be a number from {least:g} to {most:g}, not {value!r}", name)


def check_count(name: str, value: int, least: int = 1) -> None:
    """Refuse an option that is no whole number of at least ``least``.

    Raises:
        RecipeError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise RecipeError(f"{name} must be a whole number of at least {least}, not {value!r}", name)
