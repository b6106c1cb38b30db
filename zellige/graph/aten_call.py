"""What the translations of ATen share: how they say no, and the conditions that several of them set."""

from __future__ import annotations

from dataclasses import dataclass

from zellige.graph.builder import Constant, Operand, Value


class UnsupportedFormError(Exception):
    """A form of an operator that has no place in the graph; the text says which."""


@dataclass(frozen=True)
class Untranslated:
    """A result that stands in no graph: nothing may read it. ``reason`` says what it is."""

    reason: str


@dataclass(frozen=True)
class Comparison(Untranslated):
    """A truth value, which only a choice between two tensors reads. ``kind`` is a comparison of the operator ``where``."""

    kind: str
    left: Operand
    right: Operand


def constant_only(value: Value, otherwise: str) -> Constant:
    """``value`` if it is known before the network runs; ``otherwise`` says what it is if not."""
    if not isinstance(value, Constant):
        raise UnsupportedFormError(otherwise)
    return value


def axis(dimension: int, rank: int) -> int:
    """A dimension counted from the front.

    >>> axis(-1, 4)
    3
    """
    return dimension + rank if dimension < 0 else dimension


def axes(dimensions: list[int] | int | None, rank: int) -> tuple[int, ...]:
    """Dimensions counted from the front, in ascending order; none at all means every one."""
    if dimensions is None or dimensions == []:
        return tuple(range(rank))
    listed = [dimensions] if isinstance(dimensions, int) else dimensions
    return tuple(sorted(axis(dimension, rank) for dimension in listed))
