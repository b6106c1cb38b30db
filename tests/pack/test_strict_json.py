"""Ambiguous or unprintable JSON is refused; what is written comes back equal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zellige.errors import FileFormatError
from zellige.pack.strict_json import read_json, write_json

words = st.text(st.characters(codec="utf-8"))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-2**60, 2**60) | st.floats(allow_nan=False, allow_infinity=False)
    | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4))


@given(values)
def test_round_trip(value: object) -> None:
    assert read_json(write_json(value, "it"), "it") == value


@pytest.mark.parametrize("text", [
    "", "{", '{"a": 1, "a": 1}', '[{"b": {"a": 1, "a": 2}}]', "NaN", "[Infinity]", "-Infinity", "1e999",
    "-1e999", '"\\ud800"', '{"\\udfff": 1}', "[" * 100_000, '{"a":' * 100_000, "'a'", "[1,]", "\ufeff1",
    b"\xff\xfe", b'"\xed\xa0\x80"', "1 2", "\x00",
], ids=lambda text: repr(text)[:24])
def test_refused(text: str | bytes) -> None:
    with pytest.raises(FileFormatError, match="the example is not valid JSON"):
        read_json(text, "the example")


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {1: 2}, (1, 2), {"a": {1}}, object, "\ud800"],
                         ids=repr)
def test_not_written(value: object) -> None:
    with pytest.raises(FileFormatError, match="the example"):
        write_json(value, "the example")
