"""Plain data into dataclasses, by the types of their fields: what recipes are read with."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from typing import Any

import numpy as np

from zellige.errors import RecipeError

NAMES: dict[Any, str] = {float: "a number", int: "a whole number", str: "a text", bool: "true or false", type(None): "nothing"}


def options_of(kind: type[Any]) -> dict[str, Field[Any]]:
    """The fields that a dataclass's constructor takes."""
    return {found.name: found for found in fields(kind) if found.init}


def plain(value: Any) -> Any:
    """NumPy's numbers as Python's own, also in lists, mappings and the options of dataclasses: a recipe that holds one can't be
    printed, nor a checkpoint of it read, which takes no pickles but of plain data.

    >>> plain({"rates": [np.float64(0.5), 1]})
    {'rates': [0.5, 1]}
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {plain(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value] if isinstance(value, list) else tuple(map(plain, value))
    if is_dataclass(value) and not isinstance(value, type):
        options = {name: getattr(value, name) for name in options_of(type(value))}
        return replace(value, **{name: plain(option) for name, option in options.items()})
    return value


def filled(kind: type[Any], content: Mapping[str, Any], what: str) -> Any:
    """An instance of a dataclass from a mapping.

    Raises:
        RecipeError: a key is unknown, missing, or has a value of another type; its ``option`` is the key.
    """
    known, hints = options_of(kind), typing.get_type_hints(kind)
    for name in content:
        if name not in known:
            import difflib

            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known) or 'none'}"
            raise RecipeError(f"{what} has no key {name!r}; {hint}", str(name))
    for name, found in known.items():
        if name not in content and found.default is MISSING and found.default_factory is MISSING:
            raise RecipeError(f"{what} lacks {name!r}")
    return kind(**{name: fitted(value, hints[name], name) for name, value in content.items()})


def fitted(value: Any, hint: Any, name: str) -> Any:
    """A value as a field's type has it.

    >>> fitted("1e-3", float | None, "rate"), fitted([1, 2], list[float], "stages")
    (0.001, [1.0, 2.0])

    Raises:
        RecipeError: it is of another type.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        for choice in arguments:
            try:
                return fitted(value, choice, name)
            except RecipeError as error:
                if is_dataclass(choice) and isinstance(value, Mapping):
                    raise
                last = error
        raise RecipeError(f"{name} must be {' or '.join(map(_named, arguments))}, not {value!r}", name) from last
    if origin is list and isinstance(value, (list, tuple)):
        return [fitted(entry, arguments[0], name) for entry in value]
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {fitted(key, arguments[0], name): fitted(entry, arguments[1], name) for key, entry in value.items()}
    if isinstance(hint, type):
        if is_dataclass(hint) and isinstance(value, Mapping):
            try:
                return filled(hint, value, name)
            except RecipeError as error:
                raise error.within(name) from error
        if hint is float and not isinstance(value, bool) and isinstance(value, (int, float, str)):
            try:
                return float(value)  # YAML 1.1 reads 1e-3, which has no point, as a text
            except ValueError:
                pass
        elif isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
            return value
    raise RecipeError(f"{name} must be {_named(hint)}, not {value!r}", name)


def _named(hint: Any) -> str:
    if typing.get_origin(hint) is list:
        return "a list"
    if typing.get_origin(hint) in (dict, Mapping) or is_dataclass(hint):
        return "keys with values"
    return NAMES.get(hint, getattr(hint, "__name__", str(hint)))
