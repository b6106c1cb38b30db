"""Patterns by name, exact shares, and the examples in the docstrings."""

import doctest
import importlib
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zellige.errors import PruneError
from zellige.patterns import Block, Pattern, parse_pattern
from zellige.patterns.pattern import floor_share


@given(st.builds(Block, st.integers(1, 99), st.integers(1, 99), st.booleans()))
def test_text_and_pattern_are_one(pattern: Block) -> None:
    assert parse_pattern(str(pattern)) == pattern


def test_known_forms() -> None:
    assert parse_pattern("block:8x8") == Block(8, 8)
    assert parse_pattern("block:8x1:per-tap") == Block(8, 1, per_tap=True)
    assert isinstance(Block(1, 1), Pattern)


@pytest.mark.parametrize("text", ["", "blok:8x8", "8x8", "nm:2:4", "Block(8, 8)"])
def test_unknown_names_list_the_known(text: str) -> None:
    with pytest.raises(PruneError, match=r"Unknown pattern .*block:8x8"):
        parse_pattern(text)


@pytest.mark.parametrize("text", ["block", "block:", "block:8", "block:8x", "block:x8", "block:8x8x8", "block:-8x8",
                                  "block:8x8:tap", "block:8x8:per-tap:per-tap", "block:8.0x8"])
def test_arguments_that_do_not_fit_are_refused(text: str) -> None:
    with pytest.raises(PruneError, match="block:ROWSxCOLUMNS"):
        parse_pattern(text)


def test_sides_of_zero_are_refused_in_text_too() -> None:
    with pytest.raises(PruneError, match="positive"):
        parse_pattern("block:0x8")


@given(st.integers(0, 999), st.integers(1, 10**7))
def test_shares_are_exact_for_decimals(thousandths: int, blocks: int) -> None:
    assert floor_share(thousandths / 1000, blocks) == Fraction(thousandths, 1000) * blocks // 1


@pytest.mark.parametrize("name", ["shape", "pattern", "block", "parse"])
def test_docstring_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"zellige.patterns.{name}"))
    assert result.attempted > 0 and result.failed == 0
