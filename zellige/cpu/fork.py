"""Locks that survive ``fork``: a thread that holds one does not exist in the child, where nobody would open it."""

from __future__ import annotations

import os
import threading
import weakref


class ForkLock:
    """A lock (``with lock: …``) that a forked child finds open, whoever held it in the parent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def renew(self) -> None:
        self._lock = threading.Lock()


_locks: weakref.WeakSet[ForkLock] = weakref.WeakSet()


def _renew_all() -> None:
    for lock in _locks:
        lock.renew()


os.register_at_fork(after_in_child=_renew_all)
