"""JSON text that nobody vouches for: what is ambiguous in it is refused.

Python's parser takes the last of two equal keys, ``NaN`` and ``Infinity``, numbers that overflow, and halves of
surrogate pairs that no terminal can print. A file that says two things at once must not mean either.
"""

from __future__ import annotations

import json
from math import isfinite
from typing import Any

from zellige.errors import FileFormatError


def read_json(text: str | bytes, what: str) -> Any:
    """The value of ``text``; ``what`` names it in messages.

    >>> read_json('{"a": 1, "a": 2}', "the example")
    Traceback (most recent call last):
    zellige.errors.FileFormatError: the example is not valid JSON: the key 'a' stands twice
    """
    try:
        value = json.loads(text if isinstance(text, str) else text.decode("utf-8"), object_pairs_hook=_object,
                           parse_constant=_refuse, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{what} is not valid JSON: {error}") from error
    return value


def write_json(value: Any, what: str) -> str:
    """``value`` as ASCII text from which ``read_json`` makes it again.

    >>> write_json({"threads": 2}, "the example")
    '{"threads":2}'
    """
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise FileFormatError(f"{what} can't be written as JSON: {error}") from error
    if read_json(text, what) != value:
        raise FileFormatError(f"{what} would not come back equal: use lists, dicts with string keys, numbers, strings")
    return text


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, item in pairs:
        if key in value:
            raise ValueError(f"the key {key!r} stands twice")
        value[key] = item
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number that JSON knows")


def _finite(digits: str) -> float:
    if not isfinite(value := float(digits)):
        raise ValueError(f"the number {digits} is too large")
    return value
