"""What an attribute of a node may hold: kinds of values, their names in messages, their defaults, their JSON form.

Attributes are strict: a bool is no integer, an integer is no real number, a NaN is nothing. A graph read from a file
passes through the same checks as one made here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zellige.graph.ir import Attribute


@dataclass(frozen=True)
class Kind:
    """A set of values: ``words`` names it in messages, ``accepts`` decides."""

    words: str
    accepts: Callable[[object], bool]


@dataclass(frozen=True)
class AttributeSpec:
    """One attribute of an operator: its kind, and the default if there is one."""

    kind: Kind
    default: Attribute | None = None

    @property
    def required(self) -> bool:
        return self.default is None


def _is_integer(value: object, least: int | None) -> bool:
    return type(value) is int and (least is None or value >= least)


def integer(least: int | None = None) -> Kind:
    """One integer, not below ``least``."""
    bound = "" if least is None else f" ≥ {least}"
    return Kind(f"an integer{bound}", lambda value: _is_integer(value, least))


def integers(count: int | None = None, least: int | None = None) -> Kind:
    """A tuple of ``count`` integers (of any number if ``None``), each not below ``least``."""
    bound = "" if least is None else f" ≥ {least}"

    def accepts(value: object) -> bool:
        return (isinstance(value, tuple) and (count is None or len(value) == count)
                and all(_is_integer(item, least) for item in value))

    return Kind(f"a tuple of {'' if count is None else f'{count} '}integers{bound}", accepts)


def choice(*names: str) -> Kind:
    """One of a few words."""
    return Kind(f"one of {', '.join(names)}", lambda value: type(value) is str and value in names)


def _is_real(value: object) -> bool:
    return type(value) is float and not math.isnan(value)


REAL = Kind("a real number (a float, not NaN)", _is_real)
FLAG = Kind("True or False", lambda value: type(value) is bool)


def _is_scale(value: object) -> bool:
    return (isinstance(value, tuple) and len(value) == 2
            and all(_is_real(item) and 0.0 <= item < math.inf for item in value))


SCALES = Kind("a tuple of 2 finite floats ≥ 0", _is_scale)


def to_json(value: Attribute) -> Any:
    """The JSON form of a value: tuples become lists, infinities become the words ``inf`` and ``-inf``."""
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return value


def from_json(value: Any, kind: Kind) -> Any:
    """The value that ``to_json`` wrote, not yet checked: ``kind`` tells a word from an infinity."""
    if isinstance(value, list):
        return tuple(value)
    if kind is REAL and isinstance(value, str) and value in ("inf", "-inf"):
        return float(value)
    return value
