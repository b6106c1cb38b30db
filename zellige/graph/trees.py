"""Trees: how the arguments and results of a call nest, without a framework to say it.

A tree is a JSON value: an integer is a position in a flat list, ``{"list": [...]}`` and ``{"tuple": [...]}`` are
sequences, ``{"dict": [[key, value], ...]}`` is a dict with words as keys, ``null`` is ``None``.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Sequence
from typing import Any

from zellige.errors import GraphError, InputError

MAXIMUM_DEPTH = 32
_SEQUENCES = {"list": list, "tuple": tuple}


def _branches(tree: Any) -> tuple[str, list[Any]]:
    """The kind of an inner node and what hangs on it; ``GraphError`` if it is none."""
    if not isinstance(tree, dict) or len(tree) != 1:
        raise GraphError(f"a tree holds integers, null, or one of list, tuple and dict, got {reprlib.repr(tree)}")
    kind, items = next(iter(tree.items()))
    if kind not in ("list", "tuple", "dict") or not isinstance(items, list):
        raise GraphError(f"a tree node must be a list, tuple or dict of items, got {reprlib.repr(tree)}")
    if kind == "dict":
        pairs = all(isinstance(item, list) and len(item) == 2 and isinstance(item[0], str) for item in items)
        if not pairs or len({item[0] for item in items}) < len(items):
            raise GraphError("a dict in a tree must be pairs of a word, each once, and a tree, "
                             f"got {reprlib.repr(items)}")
    return kind, items


def leaves(tree: Any, depth: int = 0) -> Iterator[int]:
    """The positions that a tree names, from left to right; ``GraphError`` if it is no tree.

    >>> list(leaves({"tuple": [0, {"dict": [["logits", 1], ["extra", None]]}]}))
    [0, 1]
    """
    if depth > MAXIMUM_DEPTH:
        raise GraphError(f"a tree nests deeper than {MAXIMUM_DEPTH}")
    if type(tree) is int:
        yield tree
    elif tree is not None:
        kind, items = _branches(tree)
        for item in items:
            yield from leaves(item[1] if kind == "dict" else item, depth + 1)


def unflatten(tree: Any, values: Sequence[Any]) -> Any:
    """The nested value in which every position is replaced by the value that stands there.

    >>> unflatten({"dict": [["a", 1], ["b", {"list": [0, None]}]]}, ["x", "y"])
    {'a': 'y', 'b': ['x', None]}
    """
    if tree is None:
        return None
    if type(tree) is int:
        return values[tree]
    kind, items = _branches(tree)
    if kind == "dict":
        return {key: unflatten(item, values) for key, item in items}
    return _SEQUENCES[kind](unflatten(item, values) for item in items)


def flatten(tree: Any, value: Any, where: str = "argument") -> dict[int, Any]:
    """The values of a nested call by their position; ``InputError`` if ``value`` does not nest like ``tree``.

    >>> flatten({"tuple": [0, {"list": [1]}]}, ("x", ["y"]))
    {0: 'x', 1: 'y'}
    """
    if tree is None:
        if value is not None:
            raise InputError(f"{where} must be None, got {type(value).__name__}")
        return {}
    if type(tree) is int:
        return {tree: value}
    kind, items = _branches(tree)
    if kind == "dict":
        keys = [key for key, _ in items]
        if not isinstance(value, dict) or set(value) != set(keys):
            raise InputError(f"{where} must be a dict with the keys {', '.join(keys)}, got {_words(value)}")
        parts = [(f"{where}[{key!r}]", item, value[key]) for key, item in items]
    else:
        if not isinstance(value, (list, tuple)) or len(value) != len(items):
            raise InputError(f"{where} must be a {kind} of {len(items)}, got {_words(value)}")
        parts = [(f"{where}[{i}]", item, part) for i, (item, part) in enumerate(zip(items, value, strict=True))]
    return {at: leaf for name, item, part in parts for at, leaf in flatten(item, part, name).items()}


def _words(value: Any) -> str:
    """What came, for a message."""
    if isinstance(value, dict):
        return f"a dict with the keys {', '.join(map(str, value))}"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    return type(value).__name__
