"""Blocks of 64 rows × 64 columns, for the kernels of blocks: two tiles of 64 rows become the halves of one of 128.

Each half keeps columns of its own, and a step of the tile reads the 64 columns of X that one of them or both need. So what is
multiplied is the blocks that are there, and what is read of X is the union of both halves:

    column block    0 1 2 3 4         step            0  1  2  3
    half 0          x . x x .         column block    0  2  3  4
    half 1          . . x . x         halves          0  0 1  0  1         stored: 5 blocks of W, step by step

A tile names its rows, so any two halves may share one: those whose columns overlap most. Which they are is found greedily over all
pairs, and then by exchanging partners. What is read of random halves exceeds the least possible by about 1 %, on the average.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from zellige.cuda.tiling.device_tiles import DeviceTiles
from zellige.cuda.tiling.tiles import INDEX, PADDING, Tiles
from zellige.errors import InputError

ROWS, STEP = 64, 64
"""Rows of a half, and columns of a step."""

NOBODY = -1
"""In place of a half's partner, where their number is odd."""


@dataclass(frozen=True)
class Pairing:
    """Tiles of two halves, made of tiles of 64 rows.

    ``halves``: tiles × 2, which tile of 64 rows each was, or ``NOBODY``. ``starts``: the first step of every tile, and behind them
    the number of steps. ``columns``: the first column of every step. ``blocks``: which step of the tiles of 64 rows each stored
    block was. ``words``: for every step, its first stored block · 4 + (half 1 takes part) · 2 + (half 0 takes part).
    """

    halves: np.ndarray
    starts: np.ndarray
    columns: np.ndarray
    blocks: np.ndarray
    words: np.ndarray


def pairing(starts: np.ndarray, units: np.ndarray) -> Pairing:
    """Which tiles of 64 rows share a tile, by the first step of each and the first column of every step, ascending in each tile.

    >>> plan = pairing(np.array([0, 2, 3, 5]), np.array([0, 64, 128, 64, 128]))
    >>> plan.halves.tolist(), plan.starts.tolist(), plan.columns.tolist()
    ([[0, 2], [1, -1]], [0, 3, 4], [0, 64, 128, 128])
    >>> plan.blocks.tolist(), [(word >> 2, word & 3) for word in plan.words.tolist()]
    ([0, 1, 3, 4, 2], [(0, 1), (1, 3), (3, 2), (4, 1)])
    """
    known, which = np.unique(units, return_inverse=True)
    step_of = np.full((len(starts), len(known)), NOBODY)  # of a tile and a column; the last line is nobody's
    step_of[np.repeat(np.arange(len(starts) - 1), np.diff(starts)), which] = np.arange(len(units))
    halves = partners(step_of[:-1] != NOBODY)
    steps = step_of[halves].swapaxes(1, 2)  # tiles × columns × halves
    there = steps != NOBODY
    tile, column = np.nonzero(there.any(2))
    steps, there = steps[tile, column], there[tile, column]
    first = np.cumsum(there.sum(1)) - there.sum(1)
    counts = np.bincount(tile, minlength=len(halves))
    return Pairing(halves, np.cumsum([0, *counts]).astype(INDEX), known[column].astype(INDEX), steps[there],
                   (first * 4 + there @ [1, 2]).astype(INDEX))


def partners(used: np.ndarray) -> np.ndarray:
    """Pairs of halves × columns, True where a half has a block: pairs × 2, the first half first in each and among them.

    >>> partners(np.array([[1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]], bool)).tolist()
    [[0, 3], [1, 2], [4, -1]]
    """
    nobody = np.zeros((len(used) % 2, used.shape[1]), np.float32)
    everybody = np.concatenate([used.astype(np.float32), nobody])
    shared = everybody @ everybody.T
    pairs = np.sort(_exchanged(shared, _greedy(shared)), 1)
    pairs = pairs[np.argsort(pairs[:, 0])]
    return np.where(pairs < len(used), pairs, NOBODY)


def _greedy(shared: np.ndarray) -> np.ndarray:
    """Again and again the two of those left that share the most; of equal ones the first."""
    first, second = np.triu_indices(len(shared), 1)
    order = np.argsort(-shared[first, second], kind="stable")
    left, pairs = np.ones(len(shared), bool), np.zeros((len(shared) // 2, 2), np.intp)
    made = 0
    for one, other in zip(first[order].tolist(), second[order].tolist(), strict=True):
        if made == len(pairs):
            break
        if left[one] and left[other]:
            left[one] = left[other] = False
            pairs[made], made = (one, other), made + 1
    return pairs


def _exchanged(shared: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """As long as two pairs would share more with other partners among themselves, those exchange that gain the most."""
    while len(pairs):
        first, second = pairs.T
        own = shared[first, second]
        straight = shared[np.ix_(first, first)] + shared[np.ix_(second, second)]
        crossed = shared[np.ix_(first, second)] + shared[np.ix_(second, first)]
        gain = np.maximum(straight, crossed) - own - own[:, None]
        np.fill_diagonal(gain, 0)
        one, other = divmod(int(gain.argmax()), len(pairs))
        if gain[one, other] <= 0:
            break
        (a, b), (c, d) = pairs[[one, other]].tolist()
        pairs[[one, other]] = [(a, c), (b, d)] if straight[one, other] >= crossed[one, other] else [(a, d), (b, c)]
    return pairs


def fetched(tiles: Tiles) -> float:
    """What tiles of 64 rows read of X once they are paired, as a share of what a dense product in tiles of 128 reads.

    Their share of the multiplications, ``tiles.work``, stays what it was.

    >>> from zellige.cuda.tiling.tiles import cut_tiles
    >>> weight = np.kron(np.array([[1, 1, 0, 0], [0, 1, 1, 0]]), np.ones((64, 64)))
    >>> tiles = cut_tiles(weight, 64, 64, 64)
    >>> tiles.work, fetched(tiles)
    (0.5, 0.75)
    """
    return int(pairing(tiles.starts, tiles.units).starts[-1]) * 2 * ROWS * STEP / (tiles.shape[0] * tiles.shape[1])


def paired(weight: DeviceTiles) -> DeviceTiles:
    """The same weight in tiles of two halves, on the same device: ``values`` are the blocks that are there, 64 lines each, and
    ``halves`` says whose they are.

    ``InputError`` where they are no tiles of 64 rows in steps of 64 columns that lie side by side, or these don't ascend in a tile:
    those of a convolution are paired before its taps are told apart (``ConvolutionTiles.of``).
    """
    if (weight.tile, weight.step, weight.unit) != (ROWS, STEP, STEP):
        raise InputError(f"tiles of {ROWS} rows that keep {STEP} columns at a time are paired, not tiles of {weight.tile} × "
                         f"{weight.unit} in steps of {weight.step}")
    device, columns = weight.values.device, weight.units.cpu().numpy()[:weight.starts[-1]]
    inside = np.setdiff1d(np.arange(1, len(columns)), weight.starts)  # steps behind another of their tile
    if (columns[inside] <= columns[inside - 1]).any():
        raise InputError("tiles are paired by their columns, which must ascend in each of them; pair those of a convolution before "
                         "its taps are told apart (ConvolutionTiles.of)")
    plan = pairing(np.array(weight.starts), columns)
    nobody = weight.rows.new_full((1, ROWS), PADDING)
    rows = torch.cat([weight.rows.view(-1, ROWS), nobody])[torch.from_numpy(plan.halves).to(device)]
    values = weight.values.detach().view(-1, ROWS, STEP)[torch.from_numpy(plan.blocks).to(device)]
    return replace(weight, tile=2 * ROWS, starts=tuple(plan.starts.tolist()), values=values.view(-1, STEP),
                   units=_and_one_more(plan.columns).to(device), rows=rows.flatten(),
                   halves=torch.from_numpy(plan.words).to(device), transposed=None)


def separated(weight: DeviceTiles) -> DeviceTiles:
    """Tiles of 64 rows of which ``paired`` makes the same weight; two halves of a tile lie one behind the other."""
    assert weight.halves is not None
    words, columns = weight.halves.cpu().numpy(), weight.units.cpu().numpy()[:weight.starts[-1]]
    tile = np.repeat(np.arange(len(weight.starts) - 1), np.diff(weight.starts))
    there = words[:, None] >> np.arange(2) & 1
    step, half = np.nonzero(there)  # in the order of the blocks
    order = np.lexsort((step, half, tile[step]))
    counts = np.bincount(2 * tile[step] + half, minlength=2 * (len(weight.starts) - 1))
    blocks = weight.values.view(-1, ROWS, STEP)[torch.from_numpy(order).to(weight.values.device)]
    return replace(weight, tile=ROWS, starts=tuple(np.cumsum([0, *counts]).tolist()), values=blocks.view(-1, STEP),
                   units=_and_one_more(columns[step[order]]).to(weight.units.device), halves=None)


def is_paired(weight: DeviceTiles) -> bool:
    return weight.halves is not None


def _and_one_more(columns: np.ndarray) -> torch.Tensor:
    """As ``DeviceTiles`` has units."""
    return torch.nn.functional.pad(torch.from_numpy(columns.astype(INDEX)), (0, 1))
