"""Parcels: which packets are moved together."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zellige.aie2.lowering.packets import Batch, Parcel, batches


def parcel(sizes: list[int], rows: int) -> Parcel:
    """One pass, with a packet of each size for every row."""
    starts = np.cumsum([0, *(size * rows for size in sizes)])[None, :-1]
    return Parcel(tuple(range(rows)), np.array([sizes]), starts, np.zeros(0, np.uint8))


def test_packets_of_one_size_move_together_and_others_two_by_two() -> None:
    found = batches(parcel([4, 4, 4, 5, 6, 7], 1), [(0, part) for part in range(6)], 1)
    assert list(found) == [Batch(0, (4,), 3, (0, 4, 8)), Batch(3, (5, 6), 1, (12, 17)), Batch(5, (7,), 1, (23,))]


@given(st.lists(st.integers(1, 3), min_size=1, max_size=12), st.integers(1, 3), st.data())
def test_every_packet_moves_once_and_in_order(sizes: list[int], rows: int, data: st.DataObject) -> None:
    sent = parcel(sizes, rows)
    due = data.draw(st.lists(st.integers(0, len(sizes) - 1).map(lambda part: (0, part)), max_size=12))
    moved = [size for batch in batches(sent, due, rows) for size in batch.sizes * batch.times]
    starts = [start for batch in batches(sent, due, rows) for start in batch.starts]
    assert moved == [sizes[part] for _, part in due]
    assert starts == [int(sent.starts[0, part]) + row * sizes[part] for _, part in due for row in range(rows)]
