"""What a call of a kernel does, as data: its tables and what its items cost."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class Work:
    """``tables`` hold the slots that do not point to values: arrays and integers; ``costs`` are about the cycles of each item."""

    tables: dict[str, np.ndarray | int] = field(default_factory=dict)
    costs: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def items(self) -> int:
        return len(self.costs)

    @property
    def nbytes(self) -> int:
        """The bytes of all tables."""
        return sum(table.nbytes for table in self.tables.values() if isinstance(table, np.ndarray))


def table(*columns: np.ndarray | np.integer) -> np.ndarray:
    """Columns → a contiguous table of 32-bit integers, one row each; a number stands for a column of it."""
    return np.ascontiguousarray(np.stack(np.broadcast_arrays(*columns), -1).reshape(-1, len(columns)).astype(np.int32))


def lane_bits(lanes: np.ndarray) -> np.ndarray:
    """Booleans, the lanes of a vector along the last axis → an integer with one bit a lane."""
    return (lanes * (1 << np.arange(lanes.shape[-1], dtype=np.int64))).sum(-1)
