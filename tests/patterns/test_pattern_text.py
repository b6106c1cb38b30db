"""Patterns by name, exact shares, and the examples in the docstrings."""

import doctest
import importlib
from collections.abc import Callable
from fractions import Fraction
from numbers import Real

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zellige.errors import PruneError
from zellige.patterns import (
    NM,
    PATTERNS,
    VNM,
    Block,
    BlockVectorWise,
    Channel,
    Pattern,
    Scored,
    TileElementWise,
    TileVectorWise,
    TileWise,
    Unstructured,
    VectorWise,
    WeightShape,
    parse_pattern,
)
from zellige.patterns.parse import Form
from zellige.patterns.shares import exact_sparsity, floor_share, side_share

COUNTS = st.integers(1, 99)
PATTERNS_OF_ALL_KINDS = st.one_of(
    st.builds(Unstructured),
    st.builds(Channel),
    st.builds(Block, COUNTS, COUNTS, st.booleans()),
    st.builds(lambda n, more, along: NM(n, n + more, along), COUNTS, COUNTS, st.sampled_from(["inputs", "outputs"])),
    st.builds(lambda v, n, m: VNM(v, n, m), COUNTS, st.integers(1, 4), st.integers(5, 99)),
    st.builds(TileWise, COUNTS, st.booleans(), st.booleans()),
    st.builds(lambda rows, n, more, *options: TileVectorWise(rows, n, n + more, *options), COUNTS, COUNTS, COUNTS,
              st.booleans(), st.booleans()),
    st.builds(lambda rows, runs, n, more, *options: BlockVectorWise(rows, runs * (n + more), n, n + more, *options), COUNTS, COUNTS,
              COUNTS, COUNTS, st.booleans()),
    st.builds(TileElementWise, COUNTS, st.floats(1e-9, 0.99), st.booleans(), st.booleans()),
)


@given(PATTERNS_OF_ALL_KINDS)
def test_text_and_pattern_are_one(pattern: Pattern) -> None:
    assert parse_pattern(str(pattern)) == pattern
    assert hash(parse_pattern(str(pattern))) == hash(pattern)


@pytest.mark.parametrize(("text", "pattern"), [
    ("block:8x8", Block(8, 8)),
    ("block:8x1:per-tap", Block(8, 1, per_tap=True)),
    ("tile:128", TileWise(128)),
    ("tile-rows:128", TileWise(128, whole_rows=False)),
    ("tew:128:0.01", TileElementWise(128, 0.01)),
    ("tvw:128:2:4", TileVectorWise(128, 2, 4)),
    ("tvw:128:2:4:ordered", TileVectorWise(128, 2, 4, ordered=True)),
    ("tvw:64:2:4:tile-rows:per-tap:ordered", TileVectorWise(64, 2, 4, False, True, True)),
    ("tvw:128x64:2:4", BlockVectorWise(128, 64, 2, 4)),
    ("tvw:32x16:1:4:per-tap", BlockVectorWise(32, 16, 1, 4, per_tap=True)),
    ("nm:2:4", NM(2, 4)),
    ("nm:1:4:outputs", NM(1, 4, along="outputs")),
    ("vnm:64:2:8", VNM(64, 2, 8)),
    ("channel", Channel()),
    (" unstructured ", Unstructured()),
])
def test_known_forms(text: str, pattern: Pattern) -> None:
    assert parse_pattern(text) == pattern


@pytest.mark.parametrize("make", [
    lambda whole: Block(whole(8), whole(4)), lambda whole: TileWise(whole(16)), lambda whole: NM(whole(2), whole(4)),
    lambda whole: VNM(whole(8), whole(2), whole(8)), lambda whole: TileVectorWise(whole(16), whole(2), whole(4)),
    lambda whole: BlockVectorWise(whole(16), whole(8), whole(2), whole(4)), lambda whole: TileElementWise(whole(16), 0.01),
])
def test_whole_numbers_of_numpy_are_whole_numbers(make: Callable[[Callable[[int], int]], Pattern]) -> None:
    plain, numpy = make(int), make(np.int64)
    assert numpy == plain and hash(numpy) == hash(plain) and str(numpy) == str(plain)
    weights = torch.rand(32, 48, generator=torch.Generator().manual_seed(0))
    layers = [Scored(WeightShape((32, 48)), lambda: weights, "layer")]
    sparsity = 0.75 if isinstance(plain, (VNM, VectorWise)) else 0.5
    assert torch.equal(numpy.masks(layers, sparsity)[0], plain.masks(layers, sparsity)[0])


@pytest.mark.parametrize("form", PATTERNS, ids=lambda form: form.text)
def test_every_form_has_an_example_that_it_alone_reads(form: Form) -> None:
    assert str(parse_pattern(form.example)) == form.example and form.example.partition(":")[0] == form.name
    assert [other for other in PATTERNS if other.read(form.example) is not None] == [form]


@pytest.mark.parametrize("text", ["", "blok:8x8", "8x8", "mn:2:4", "Block(8, 8)"])
def test_unknown_names_list_the_known(text: str) -> None:
    with pytest.raises(PruneError, match=r"Unknown pattern .*block:8x8"):
        parse_pattern(text)


@pytest.mark.parametrize("text", ["block", "block:", "block:8", "block:8x", "block:x8", "block:8x8x8", "block:-8x8",
                                  "block:8x8:tap", "block:8x8:per-tap:per-tap"])
def test_arguments_that_do_not_fit_are_refused(text: str) -> None:
    with pytest.raises(PruneError, match="block:ROWSxCOLUMNS"):
        parse_pattern(text)


@pytest.mark.parametrize(("text", "form"), [
    ("tile", "tile:ROWS"), ("tile:8:4", "tile:ROWS"), ("tile-rows:8:tap", "tile-rows:ROWS"), ("nm:2", "nm:N:M"),
    ("nm:2:4:inputs", "nm:N:M"), ("vnm:2:4", "vnm:V:N:M"), ("tvw:128:2", "tvw:ROWS:N:M"),
    ("tvw:128x64:2", r"tvw:ROWS:N:M.*, or tvw:ROWSxCOLUMNS:N:M.* instance tvw:128x64:2:4; not"),
    ("tvw:128x64:2:4:ordered", "tvw:ROWSxCOLUMNS:N:M"), ("tvw:128x64:2:4:tile-rows", "tvw:ROWSxCOLUMNS:N:M"),
    ("tew:128", "tew:ROWS:DELTA"),
    ("channel:8", "channel"), ("unstructured:1", "unstructured")])
def test_arguments_of_the_others_are_checked_alike(text: str, form: str) -> None:
    with pytest.raises(PruneError, match=form):
        parse_pattern(text)


@pytest.mark.parametrize("text", ["block:0x8", "block:8.0x8", "tile:0", "tile:2.5", "nm:4:4", "nm:0:4", "nm:1.5:4", "vnm:0:2:8",
                                  "vnm:8:2:3", "vnm:8:5:8", "tvw:0:2:4", "tvw:8:4:2", "tvw:8:1:4:ordered",
                                  "tvw:0x8:2:4", "tvw:8x0:2:4", "tvw:8x8:4:4", "tvw:8x6:2:4", "tvw:8x2:2:4",
                                  "tew:128:0", "tew:128:1", "tew:0.5:0.1"])
def test_numbers_out_of_range_are_refused_in_text_too(text: str) -> None:
    with pytest.raises(PruneError):
        parse_pattern(text)


@given(st.integers(0, 999), st.integers(1, 10**7))
def test_shares_are_exact_for_decimals(thousandths: int, blocks: int) -> None:
    assert floor_share(thousandths / 1000, blocks) == Fraction(thousandths, 1000) * blocks // 1


@pytest.mark.parametrize("number", [np.float16, np.float32, np.float64, np.longdouble, float, Fraction])
@pytest.mark.parametrize("text", ["0.29", "0.07", "0.999", "0.0"])
def test_a_decimal_is_what_was_written_in_any_precision(number: Callable[[str], Real], text: str) -> None:
    share = exact_sparsity(number(text))
    assert share == Fraction(text) and type(share.numerator) is int
    assert exact_sparsity(np.int64(0)) == 0 and type(exact_sparsity(np.int64(0)).numerator) is int
    assert text == "0.0" or str(TileElementWise(8, number(text))) == f"tew:8:{text}"


@given(st.integers(0, 999), st.integers(1, 10**7))
def test_shares_of_a_side_are_exact(thousandths: int, count: int) -> None:
    """Of a side, k go and n − k stay: (n − k)² ≥ (1 − s) n², and one more gone would break that."""
    share = exact_sparsity(thousandths / 1000)
    gone = side_share(share, count)
    assert (count - gone) ** 2 >= (1 - share) * count**2
    assert gone == count or (count - gone - 1) ** 2 < (1 - share) * count**2


@pytest.mark.parametrize("name", ["shape", "shares", "ranking", "block", "unstructured", "channel", "fixed_share", "nm", "vnm",
                                  "tile_wise", "vector_wise", "tile_vector_wise", "block_vector_wise", "tile_element_wise",
                                  "parse"])
def test_docstring_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"zellige.patterns.{name}"))
    assert result.attempted > 0 and result.failed == 0
