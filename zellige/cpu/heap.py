"""Memory that is free but still with the C library goes back to the system."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache


def trim_heap() -> None:
    """Give back what planning has left behind: most of it lies between arrays that stay, where ``free`` alone can't.

    It takes some milliseconds. A C library other than glibc keeps its own counsel.
    """
    if trim := _malloc_trim():
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    function = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if function is not None:
        function.argtypes, function.restype = [ctypes.c_size_t], ctypes.c_int
    return function
