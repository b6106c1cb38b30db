"""What holds for all patterns: masks keep to the pattern, come out the same again, and bad input is refused."""

import math
from collections.abc import Callable

import pytest
import torch
from every_pattern import EVERY, FIXED, FREE, TILED, one_of_each, scores_of, shapes, sparsity_for
from hypothesis import given
from hypothesis import strategies as st

from zellige.errors import PruneError
from zellige.patterns import Pattern, Scored, TileVectorWise, TileWise, WeightShape

SPARSITIES = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.75, 0.9])


@given(EVERY, shapes(), SPARSITIES, st.integers(0, 999), st.sampled_from([None, 1, 3]))
def test_masks_keep_to_the_pattern(pattern: Pattern, shape: WeightShape, asked: float, seed: int, largest: int | None) -> None:
    scores = scores_of(shape, seed, largest)
    mask = pattern.mask(scores, sparsity_for(pattern, asked), shape.groups)
    assert mask.shape == scores.shape and mask.dtype == torch.bool and mask.is_contiguous()
    assert mask.any()
    assert pattern.verify(scores * mask, shape.groups).clean
    assert pattern.verify(mask, shape.groups).clean


@given(st.one_of(FREE, FIXED, TILED), shapes(), SPARSITIES, st.integers(0, 999), st.sampled_from([None, 1, 3]))
def test_masks_are_the_same_again(pattern: Pattern, shape: WeightShape, asked: float, seed: int, largest: int | None) -> None:
    sparsity = sparsity_for(pattern, asked)
    scores = scores_of(shape, seed, largest)
    mask = pattern.mask(scores, sparsity, shape.groups)
    assert torch.equal(pattern.mask(scores * mask, sparsity, shape.groups), mask)


@given(st.integers(0, 999), st.booleans(), st.sampled_from([0.5, 0.6, 0.75]))
def test_vectors_of_equal_tall_tiles_are_the_same_again(seed: int, per_tap: bool, sparsity: float) -> None:
    """Thinning changes the means of the columns that stay: no matter where all are of one size and show a weight."""
    shape, pattern = WeightShape((48, 12, 2)), TileVectorWise(16, 2, 4, whole_rows=False, per_tap=per_tap)
    scores = scores_of(shape, seed)
    mask = pattern.mask(scores, sparsity)
    assert torch.equal(pattern.mask(scores * mask, sparsity), mask)


@given(EVERY, shapes(), SPARSITIES, st.integers(0, 999))
def test_inputs_are_left_alone(pattern: Pattern, shape: WeightShape, asked: float, seed: int) -> None:
    scores = scores_of(shape, seed)
    before = scores.clone()
    mask = pattern.mask(scores, sparsity_for(pattern, asked), shape.groups)
    kept = mask.clone()
    pattern.verify(mask, shape.groups)
    pattern.compact_bytes(mask, shape.groups)
    assert torch.equal(scores, before) and torch.equal(mask, kept)


@given(EVERY, shapes(), SPARSITIES, st.integers(0, 999))
def test_random_masks_repeat_and_keep_to_the_pattern(pattern: Pattern, shape: WeightShape, asked: float, seed: int) -> None:
    sparsity = sparsity_for(pattern, asked)
    mask, again = (pattern.random_mask(shape, sparsity, torch.Generator().manual_seed(seed)) for _ in range(2))
    assert torch.equal(mask, again)
    assert pattern.verify(mask.float(), shape.groups).clean


@given(EVERY, shapes(), SPARSITIES, st.integers(0, 999))
def test_compact_forms_hold_all_values(pattern: Pattern, shape: WeightShape, asked: float, seed: int) -> None:
    mask = pattern.mask(scores_of(shape, seed), sparsity_for(pattern, asked), shape.groups)
    two, four = (pattern.compact_bytes(mask, shape.groups, itemsize) for itemsize in (2, 4))
    assert two >= 2 * int(mask.sum()) and four >= 4 * int(mask.sum())
    assert four > two


@pytest.mark.parametrize("pattern", one_of_each(), ids=str)
def test_large_weights_weigh_about_their_density(pattern: Pattern) -> None:
    """At 75 % sparsity values alone are a quarter. An index serves a whole block, or one weight, or a tile's column of 4 rows."""
    shape = WeightShape((256, 256))
    sparsity = sparsity_for(pattern, 0.75)
    mask = pattern.random_mask(shape, sparsity, torch.Generator().manual_seed(0))
    left = 1 - sparsity
    share = pattern.compact_bytes(mask) / (4 * shape.weights)
    most = {"unstructured": 2.1, "tew": 2.1, "tvw": 1.7}.get(str(pattern).partition(":")[0], 1.35)
    assert left < share < most * left


@pytest.mark.parametrize("pattern", one_of_each(), ids=str)
@pytest.mark.parametrize("sparsity", [1, 1.0, -0.1, 2, math.nan, math.inf, "half", None, True])
def test_sparsities_that_are_none_are_refused(pattern: Pattern, sparsity: float) -> None:
    with pytest.raises(PruneError, match="Sparsity is the share"):
        pattern.mask(torch.rand(16, 16), sparsity)


@pytest.mark.parametrize("pattern", one_of_each(), ids=str)
@pytest.mark.parametrize(("spoil", "message"), [
    (lambda scores: scores.fill_(0), "all zero"),
    (lambda scores: scores[3].fill_(math.nan), "expected finite numbers"),
    (lambda scores: scores[3].fill_(math.inf), "expected finite numbers"),
    (lambda scores: scores[3].fill_(-1), "not negative"),
])
def test_scores_that_cannot_be_ranked_are_refused(pattern: Pattern, spoil: object, message: str) -> None:
    scores = torch.rand(16, 16)
    spoil(scores)  # type: ignore[operator]
    with pytest.raises(PruneError, match=message):
        pattern.mask(scores, sparsity_for(pattern, 0.5))


@pytest.mark.parametrize("pattern", one_of_each(), ids=str)
@pytest.mark.parametrize(("spoil", "kind"), [
    (lambda scores: torch.complex(scores, scores), "complex64"),
    (lambda scores: scores.to_sparse(), "sparse"),
    (lambda scores: scores.to("meta"), "meta"),
    (lambda scores: torch.quantize_per_tensor(scores, 0.1, 0, torch.quint8), "quint8"),
])
def test_scores_that_are_no_ordinary_numbers_are_refused(pattern: Pattern, spoil: Callable[[torch.Tensor], torch.Tensor],
                                                         kind: str) -> None:
    with pytest.raises(PruneError, match=f"must be real numbers in an ordinary tensor, not .*{kind}"):
        pattern.mask(spoil(torch.rand(16, 16)), sparsity_for(pattern, 0.5))


@pytest.mark.parametrize("pattern", one_of_each(), ids=str)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_numbers_of_other_types_are_ranked_as_such(pattern: Pattern, dtype: torch.dtype) -> None:
    scores = torch.randint(0, 2 if dtype is torch.bool else 100, (18, 18), generator=torch.Generator().manual_seed(0)).to(dtype)
    if dtype is torch.int64:
        scores += 1 << 40  # more than float32 can tell apart
    sparsity = sparsity_for(pattern, 0.5)
    assert torch.equal(pattern.mask(scores, sparsity), pattern.mask(scores.double(), sparsity))


@pytest.mark.parametrize("pattern", one_of_each(), ids=str)
@pytest.mark.parametrize("scores", [torch.ones(16, 15), torch.ones(16), None, 3.0])
def test_scores_of_another_shape_are_refused(pattern: Pattern, scores: object) -> None:
    layer = Scored(WeightShape((16, 16)), lambda: scores, "net.fc")  # type: ignore[arg-type, return-value]
    with pytest.raises(PruneError, match=r"layer 'net.fc'.*\(16, 16\)"):
        pattern.masks([layer], sparsity_for(pattern, 0.5))


@pytest.mark.parametrize("pattern", one_of_each(), ids=str)
def test_depthwise_weights_are_refused(pattern: Pattern) -> None:
    assert "depthwise" in str(pattern.refusal(WeightShape((32, 1, 3, 3), groups=32)))
    assert pattern.refusal(WeightShape((64, 8, 3, 3), groups=8)) is None


@pytest.mark.parametrize("pattern", one_of_each(), ids=str)
def test_tiny_weights_are_too_small_and_large_ones_are_not(pattern: Pattern) -> None:
    assert "too small" in str(pattern.too_small(WeightShape((3, 1))))
    assert pattern.too_small(WeightShape((64, 64, 3, 3))) is None


@pytest.mark.parametrize("pattern", one_of_each(), ids=str)
def test_half_precision_is_ranked_as_its_exact_values(pattern: Pattern) -> None:
    weight = torch.randn(32, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    sparsity = sparsity_for(pattern, 0.5)
    masks = [pattern.mask(weight.to(dtype).abs(), sparsity) for dtype in (torch.bfloat16, torch.float32, torch.float64)]
    assert torch.equal(masks[0], masks[1]) and torch.equal(masks[1], masks[2])


def test_scores_are_asked_for_one_layer_at_a_time() -> None:
    alive: list[int] = []

    def scores(number: int) -> torch.Tensor:
        alive.append(number)
        return torch.rand(16, 16, generator=torch.Generator().manual_seed(number))

    layers = [Scored(WeightShape((16, 16)), lambda number=number: scores(number)) for number in range(3)]  # type: ignore[misc]
    TileWise(4).masks(layers, 0.5)
    assert alive == [0, 1, 2, 0, 1, 2]
