"""Words that descriptors visit, against visiting them one by one."""

from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zellige.aie2.simulate.memory import Dimensions, Words, indices, merged

DIMENSIONS = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 40)), min_size=1, max_size=4).map(tuple)


def one_by_one(dimensions: Dimensions) -> list[int]:
    return [sum(at * stride for at, (_, stride) in zip(place, dimensions, strict=True))
            for place in product(*(range(size) for size, _ in dimensions))]  # fmt: skip


@given(DIMENSIONS)
def test_merging_changes_no_order(dimensions: Dimensions) -> None:
    assert one_by_one(merged(dimensions)) == one_by_one(dimensions) == indices(dimensions, 0, len(one_by_one(dimensions))).tolist()


@given(DIMENSIONS, st.data())
def test_take_and_put(dimensions: Dimensions, data: st.DataObject) -> None:
    places, start = [3 + at for at in one_by_one(dimensions)], 3
    first = data.draw(st.integers(0, len(places) - 1))
    last = data.draw(st.integers(first + 1, len(places)))
    words = Words(start, merged(dimensions), first, last)
    array = np.arange(max(places) + 4)
    assert words.take(array).tolist() == places[first:last]
    assert [words.at(number) for number in range(last - first)] == places[first:last]
    if len(set(places)) == len(places):
        written = array.copy()
        words.put(written, 1000 + np.arange(last - first))
        for number, place in enumerate(places[first:last]):
            array[place] = 1000 + number
        assert np.array_equal(written, array)
        words.put(written, -1)
        assert [at for at, value in enumerate(written) if value == -1] == sorted(places[first:last])
