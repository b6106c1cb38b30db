"""Clustering: permutations that hold together, shares as the patterns have them, and searches that come near the best there is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import zellige as zl
from zellige.errors import PruneError
from zellige.patterns import Pattern, parse_pattern
from zellige.prune.clustering import METHODS
from zellige.prune.clustering.exchange import Cooling
from zellige.prune.clustering.tetris import LEAST_GAIN, exchange_greedily

QUICK = [name for name in METHODS if name != "annealing"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Steps of a search are small: on a busy machine threads that wait for one another take most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_weight(*dims: int, seed: int = 0) -> torch.Tensor:
    """Heavy-tailed, with rows and columns of different scales."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.rand(dims[0], 1, generator=generator) + 0.2, torch.rand(1, dims[1], generator=generator) + 0.2
    taps = [1] * (len(dims) - 2)
    scale = (scales[0] * scales[1]).reshape(*dims[:2], *taps)
    return torch.randn(dims, generator=generator) ** 3 * scale


def share_kept(weight: torch.Tensor, pattern: Pattern, sparsity: float) -> float:
    scores = weight.double().abs()
    return float((scores * pattern.mask(scores, sparsity)).sum() / scores.sum())


def check(weight: torch.Tensor, pattern: str, sparsity: float, method: str) -> zl.Clustering:
    """The invariants of every clustering."""
    before = weight.clone()
    found = zl.cluster(weight, pattern, sparsity, method)
    assert torch.equal(weight, before)
    for order, lines in ((found.rows, weight.shape[0]), (found.columns, weight.shape[1])):
        assert isinstance(order, np.ndarray) and order.dtype == np.int64
        assert sorted(order.tolist()) == list(range(lines))
    parsed = parse_pattern(pattern)
    clustered = weight[found.rows][:, found.columns]
    assert found.kept == pytest.approx(share_kept(clustered, parsed, sparsity), rel=1e-6)  # magnitudes are float32 there
    assert found.kept_before == pytest.approx(share_kept(weight, parsed, sparsity), rel=1e-6)
    assert found.kept_before <= found.kept <= 1
    return found


@given(rows=st.integers(2, 20), columns=st.integers(2, 20), taps=st.integers(1, 3), band=st.integers(1, 6), run=st.integers(1, 6),
       kind=st.sampled_from(["block:{}x{}", "block:{}x{}:per-tap", "tile-rows:{}", "tile-rows:{}:per-tap"]),
       sparsity=st.sampled_from([0.0, 0.25, 0.5, 0.9]), method=st.sampled_from(QUICK), seed=st.integers(0, 99))
def test_invariants(rows: int, columns: int, taps: int, band: int, run: int, kind: str, sparsity: float, method: str,
                    seed: int) -> None:
    """Whatever the sizes, ragged ones too; only where no order matters there is an error."""
    weight = random_weight(rows, columns, taps, seed=seed) if taps > 1 else random_weight(rows, columns, seed=seed)
    if kind.startswith("tile"):
        run = 1
    if 1 < band < rows or 1 < run < columns:
        check(weight, kind.format(band, run), sparsity, method)
    else:
        with pytest.raises(PruneError, match="in any order"):
            zl.cluster(weight, kind.format(band, run), sparsity, method)


@pytest.mark.parametrize("pattern", ["block:8x8", "block:8x1", "block:1x8", "block:4x4", "block:16x16", "tile-rows:16"])
@pytest.mark.parametrize("dims", [(64, 96), (64, 48, 3, 3), (61, 93)])
def test_the_default_gains_more_than_greed(pattern: str, dims: tuple[int, ...]) -> None:
    """Where pieces divide the lines, and where they don't."""
    weight = random_weight(*dims)
    exchange, tetris = (check(weight, pattern, 0.5, method) for method in ("exchange", "tetris"))
    assert exchange.kept > exchange.kept_before
    assert exchange.kept >= tetris.kept - 1e-9


def test_the_default_gains_clearly_more_in_noise() -> None:
    """1.29 times as much; vectors of one width make it the same on every machine."""
    weight = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    exchange, tetris = (check(weight, "block:8x8", 0.5, method) for method in ("exchange", "tetris"))
    assert exchange.kept - exchange.kept_before > 1.2 * (tetris.kept - tetris.kept_before)


@pytest.mark.parametrize("pattern", ["block:8x8", "block:16x16", "tile-rows:16"])
@pytest.mark.parametrize("method", QUICK)
def test_short_pieces_gain_too(pattern: str, method: str) -> None:
    found = check(random_weight(76, 44, 3), pattern, 0.5, method)
    assert found.kept > found.kept_before


def partitions(lines: list[int], length: int) -> Iterator[list[int]]:
    """Every way to put lines into pieces of a length, regardless of the order of pieces and of lines in them."""
    if not lines:
        yield []
    for others in itertools.combinations(lines[1:], length - 1):
        left = [line for line in lines[1:] if line not in others]
        for rest in partitions(left, length):
            yield [lines[0], *others, *rest]


def best_share(weight: torch.Tensor, band: int, run: int, removed: int) -> float:
    """The largest share that any order keeps, by trying all of them."""
    values = weight.double().abs().numpy()
    best = 0.0
    for rows in partitions(list(range(len(values))), band):
        bands = values[rows].reshape(-1, band, values.shape[1]).sum(1)
        for columns in partitions(list(range(values.shape[1])), run):
            blocks = np.sort(bands[:, columns].reshape(len(bands), -1, run).sum(2), axis=None)
            best = max(best, blocks[removed:].sum())
    return best / values.sum()


SMALL = [(4, 2, 2), (6, 2, 2), (6, 3, 2), (6, 2, 3), (6, 3, 3)]


@pytest.mark.parametrize("method, shortfall", [("exchange", 1e-6), ("tetris", 0.3)])
def test_near_the_best_permutation(method: str, shortfall: float) -> None:
    """Mean and largest shortfall against brute force, as a share of the mass; the default finds the best each time."""
    short = []
    for (size, band, run), seed in itertools.product(SMALL, range(2)):
        weight = random_weight(size, size, seed=seed)
        found = check(weight, f"block:{band}x{run}", 0.5, method)
        best = best_share(weight, band, run, size // band * (size // run) // 2)
        assert found.kept <= best + 1e-6
        short.append(best - found.kept)
    print(f"{method}: short of the best by {np.mean(short):.4f} on average, {max(short):.4f} at most, in {len(short)} cases, "
          f"{sum(gap < 1e-6 for gap in short)} of them exact")
    assert max(short) <= shortfall


@given(pieces=st.integers(2, 6), length=st.integers(1, 4), missing=st.integers(0, 3), seed=st.integers(0, 999))
def test_greedy_exchange_takes_the_best_pair_each_time(pieces: int, length: int, missing: int, seed: int) -> None:
    """Against Ji et al.'s own form of it: gains of all pairs of lines, the largest first."""
    lines = pieces * length - min(missing, length - 1)
    generator = np.random.default_rng(seed)
    kept, order = generator.random((lines, pieces)) * 10, generator.permutation(lines)
    expected, piece_of = order.copy(), np.arange(lines) // length
    while True:
        placed = kept[expected][:, piece_of]  # line × place
        now = placed.diagonal()
        gains = placed + placed.T - now[:, None] - now[None, :]
        one, other = np.unravel_index(gains.argmax(), gains.shape)
        if gains[one, other] <= LEAST_GAIN:
            break
        expected[[one, other]] = expected[[other, one]]
    assert exchange_greedily(kept, order, length).tolist() == expected.tolist()


def test_a_hidden_order_is_found() -> None:
    """Large and small blocks, shuffled: the order that separates them keeps all of the large ones."""
    generator = torch.Generator().manual_seed(3)
    blocks = (torch.arange(8)[:, None] + torch.arange(8)[None, :]) % 2 == 0
    weight = torch.where(blocks.repeat_interleave(4, 0).repeat_interleave(4, 1), 1.0, 0.01)
    shuffled = weight[torch.randperm(32, generator=generator)][:, torch.randperm(32, generator=generator)]
    assert check(shuffled, "block:4x4", 0.5, "exchange").kept == pytest.approx(1 / 1.01, rel=1e-6)


@pytest.mark.parametrize("method", QUICK)
def test_threads_and_calls_change_nothing(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums are large enough here to be shared by threads."""
    monkeypatch.setattr("zellige.prune.clustering.methods.QUICK", Cooling(tries=200, visits=3, work=1e10, start=0.1))
    weight, threads = random_weight(136, 600), torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(zl.cluster(weight, "block:8x1", 0.5, method))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert np.array_equal(found[0].rows, other.rows) and np.array_equal(found[0].columns, other.columns)
        assert found[0].kept == other.kept


def test_the_seed_counts_and_the_generator_of_torch_does_not() -> None:
    weight = random_weight(64, 64)
    state = torch.get_rng_state()
    first = zl.cluster(weight, "block:8x8", 0.5, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    again, other = (zl.cluster(weight, "block:8x8", 0.5, seed=seed) for seed in (1, 2))
    torch.set_rng_state(state)
    assert np.array_equal(first.rows, again.rows) and not np.array_equal(first.rows, other.rows)


@pytest.mark.parametrize("method", QUICK)
def test_a_weight_that_is_read_again_gives_the_same(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = random_weight(40, 56)
    copied = zl.cluster(weight, "block:8x8", 0.5, method)
    monkeypatch.setattr("zellige.prune.clustering.grid.READ_AGAIN", 0)
    monkeypatch.setattr("zellige.prune.clustering.grid.SLAB", 500)
    again = zl.cluster(weight, "block:8x8", 0.5, method)
    assert np.array_equal(copied.rows, again.rows) and np.array_equal(copied.columns, again.columns)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale_changes_nothing(scale: float) -> None:
    weight = random_weight(48, 48).double()
    found = zl.cluster(weight * scale, "block:8x8", 0.5)
    assert found.kept == pytest.approx(zl.cluster(weight, "block:8x8", 0.5).kept, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    found = zl.cluster(torch.nn.Parameter(random_weight(32, 32).to(dtype)), zl.Block(8, 8), 0.5)
    assert found.kept > found.kept_before


@pytest.mark.parametrize("method", QUICK)
def test_progress(method: str) -> None:
    seen: list[tuple[int, int | None]] = []
    zl.cluster(random_weight(32, 32), "block:8x8", 0.5, method, progress=lambda done, of: seen.append((done, of)))
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    assert all(of in (None, len(seen)) for _, of in seen)


WEIGHT = torch.ones(32, 32)


@pytest.mark.parametrize("arguments, message", [
    ((WEIGHT, "nm:2:4", 0.5), "Clustering is for"), ((WEIGHT, zl.TileWise(8), 0.5), "Clustering is for"),
    ((WEIGHT, zl.Channel(), 0.5), "Clustering is for"), ((WEIGHT, 8, 0.5), "Clustering is for"),
    ((WEIGHT, "blok", 0.5), "blok"), ((WEIGHT, "block:1x1", 0.5), "in any order"), ((WEIGHT, "block:64x64", 0.5), "in any order"),
    ((WEIGHT, "block:8x8", 1.0), "less than 1"), ((WEIGHT, "block:8x8", -0.1), "at least 0"),
    ((WEIGHT, "block:8x8", 0.5, "best"), "Unknown clustering method"), ((WEIGHT * torch.nan, "block:8x8", 0.5), "NaN"),
    ((WEIGHT * torch.inf, "block:8x8", 0.5), "infinite"), ((WEIGHT * 0, "block:8x8", 0.5), "all zero"),
    ((torch.ones(8), "block:8x8", 0.5), "rows and columns"), ((torch.ones(0, 8), "block:8x8", 0.5), "empty"),
    ((WEIGHT.to("meta"), "block:8x8", 0.5), "meta device"), ((WEIGHT + 1j, "block:8x8", 0.5), "one of torch.complex64"),
    ((WEIGHT > 0, "block:8x8", 0.5), "one of torch.bool"), ((WEIGHT.to_sparse(), "block:8x8", 0.5), "torch.sparse_coo one"),
    ((WEIGHT.to(torch.float8_e4m3fn), "block:8x8", 0.5), "one of torch.float8_e4m3fn"),
    ((WEIGHT.numpy(), "block:8x8", 0.5), "tensor of floating-point or whole numbers, not ndarray"),
    (([[1.0]], "block:8x8", 0.5), "not list"), ((WEIGHT, "block:8x8", 0.5, ["tetris"]), "Unknown clustering method"),
])
def test_bad_input(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(PruneError, match=message):
        zl.cluster(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [-1, 1.0, True, 1 << 63])
def test_bad_seed(seed: object) -> None:
    with pytest.raises(PruneError, match="seed"):
        zl.cluster(WEIGHT, "block:8x8", 0.5, seed=seed)  # type: ignore[arg-type]


def test_bad_progress() -> None:
    with pytest.raises(PruneError, match="progress is a function that takes the steps done and the steps in all"):
        zl.cluster(WEIGHT, "block:8x8", 0.5, progress="loud")  # type: ignore[arg-type]
