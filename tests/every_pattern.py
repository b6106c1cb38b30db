"""Patterns and weights for tests of what holds for all of them."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from zellige.patterns import (
    NM,
    VNM,
    Block,
    BlockVectorWise,
    Channel,
    Pattern,
    TileElementWise,
    TileVectorWise,
    TileWise,
    Unstructured,
    VectorWise,
    WeightShape,
)

ROWS = st.integers(1, 9)
FREE = st.one_of(st.builds(Unstructured), st.builds(Channel), st.builds(Block, ROWS, ROWS, st.booleans()))
FEW_OF_MANY = st.sampled_from([(1, 2), (1, 4), (2, 4), (4, 8), (2, 3), (3, 4)])
FIXED = st.one_of(
    st.builds(lambda few, along: NM(*few, along), FEW_OF_MANY, st.sampled_from(["inputs", "outputs"])),
    st.builds(VNM, st.integers(1, 5), st.integers(1, 4), st.integers(5, 9)),
)
TILED = st.builds(TileWise, ROWS, st.booleans(), st.booleans())
VECTORS_IN_BLOCKS = st.builds(lambda rows, runs, few, per_tap: BlockVectorWise(rows, runs * few[1], *few, per_tap),
                              ROWS, st.integers(1, 3), FEW_OF_MANY, st.booleans())
MIXED = st.one_of(
    st.builds(lambda rows, few, *options: TileVectorWise(rows, *few, *options), ROWS, FEW_OF_MANY, st.booleans(), st.booleans()),
    st.builds(lambda rows, *options: TileVectorWise(rows, 2, 4, *options, ordered=True), ROWS, st.booleans(), st.booleans()),
    VECTORS_IN_BLOCKS,
    st.builds(TileElementWise, ROWS, st.sampled_from([0.01, 0.05, 0.2]), st.booleans(), st.booleans()),
)
EVERY = st.one_of(FREE, FIXED, TILED, MIXED)


def one_of_each() -> list[Pattern]:
    return [Unstructured(), Block(4, 4), Channel(), NM(2, 4), NM(1, 4, "outputs"), VNM(4, 2, 8), TileWise(4), TileWise(4, False),
            TileVectorWise(4, 2, 4), TileVectorWise(4, 2, 4, ordered=True), BlockVectorWise(4, 4, 2, 4), TileElementWise(4, 0.05)]


@st.composite
def shapes(draw: st.DrawFn, largest: int = 14) -> WeightShape:
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    rows, columns = groups * draw(st.integers(1, largest)), draw(st.integers(1, largest))
    taps = draw(st.sampled_from([(), (1, 1), (3,), (2, 2)]))
    return WeightShape((rows, columns, *taps), groups)


def sparsity_for(pattern: Pattern, asked: float) -> float:
    """The asked sparsity, or what is nearest to it that the pattern can have."""
    if isinstance(pattern, (NM, VNM)):
        return float(pattern.sparsity)
    if isinstance(pattern, VectorWise):
        return max(asked, float(pattern.inside.sparsity))
    return min(asked, 0.79) if isinstance(pattern, TileElementWise) else asked


def scores_of(shape: WeightShape, seed: int, largest: int | None = None) -> torch.Tensor:
    """Scores above zero: all different, or whole numbers up to ``largest``, so that ties abound."""
    generator = torch.Generator().manual_seed(seed)
    if largest is None:
        return 1 + torch.rand(shape.dims, generator=generator, dtype=torch.float64)
    return torch.randint(1, largest + 1, shape.dims, generator=generator).double()
