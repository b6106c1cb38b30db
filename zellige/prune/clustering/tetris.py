"""TETRIS (Ji et al., NeurIPS 2018): masks and pair exchanges in turn.

The E-step marks the blocks that go. The M-step, one axis after the other, exchanges two lines as long as that saves mass under
the same mask, the best pair first. All lines of a piece meet the same mask, so the mass that a line keeps is a matter of the
piece it stands in, and the best exchange between two pieces is that of the two lines that gain most by moving there: lines ×
pieces are looked at in place of lines × lines, with the same exchanges. Both steps repeat until they win nothing more.

Sums are rounded to whole numbers so small that float32 holds all of their sums exactly, in any order of addition.
"""

from __future__ import annotations

import numpy as np
import torch

from zellige.prune.clustering.grid import Grid, Orders
from zellige.prune.clustering.progress import Progress

LEAST_GAIN = 1e-3  # in units of the mean magnitude
WHOLE = float(1 << 24)  # up to here float32 holds every whole number


def tetris(grid: Grid, seed: int, progress: Progress) -> Orders:
    """Rows and columns by pair exchange from where they are; nothing is drawn, so the seed doesn't matter."""
    orders, kept, rounds = grid.identity(), -np.inf, 0
    while True:
        axis = grid.axes[0]
        sizes, sums = grid.sizes(axis), grid.sums(axis, orders)
        blocks = grid.blocks(axis, sums, orders[axis])
        if (now := grid.kept(blocks, sizes)) < kept + LEAST_GAIN:
            return orders
        kept, mask = now, (blocks / sizes > grid.threshold(blocks / sizes)).float()
        for axis in grid.axes:
            if axis != grid.axes[0]:
                sums, mask = grid.sums(axis, orders), _turned(mask, grid)
            exchanged = exchange_greedily(_kept_in(sums, mask), orders[axis].numpy(), grid.lengths[axis])
            orders = (torch.from_numpy(exchanged), orders[1]) if axis == 0 else (orders[0], torch.from_numpy(exchanged))
        rounds += 1
        progress(rounds, None)


def exchange_greedily(kept: np.ndarray, order: np.ndarray, length: int) -> np.ndarray:
    """The order after all exchanges that gain, the best first; ``kept`` says what a line keeps in a piece: lines × pieces."""
    pieces, every = kept.shape[1], np.arange(kept.shape[1])
    places = np.full(pieces * length, -1)
    places[: len(order)] = order
    places = places.reshape(pieces, length)
    gains = kept[places]
    gains -= gains[every, :, every][:, :, None]
    gains[places < 0] = -np.inf  # past the end of the last piece: no line stands there
    best = gains.max(1)  # of moving one line of this piece to that one
    pair = best + best.T
    np.fill_diagonal(pair, -np.inf)
    partner = pair.argmax(1)
    while pair[one := int(pair[every, partner].argmax()), other := int(partner[one])] > LEAST_GAIN:
        here, there = gains[one, :, other].argmax(), gains[other, :, one].argmax()
        places[one, here], places[other, there] = places[other, there], places[one, here]
        for piece, place in ((one, here), (other, there)):
            row = kept[places[piece, place]]
            gains[piece, place] = row - row[piece]
            best[piece] = gains[piece].max(0)
        for piece in (one, other):
            pair[piece] = pair[:, piece] = best[piece] + best[:, piece]
            pair[piece, piece] = -np.inf
            closer = pair[:, piece] > pair[every, partner]
            partner[closer] = piece
        stale = np.flatnonzero((partner == one) | (partner == other))
        partner[stale] = pair[stale].argmax(1)
        partner[[one, other]] = pair[[one, other]].argmax(1)
    return places.ravel()[: len(order)]


def _kept_in(sums: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
    """What every line keeps in every piece, by a mask of pieces × blocks: lines × pieces."""
    whole = float(sums.double().sum(1).max()) / WHOLE or 1.0
    return ((sums / whole).floor() @ mask.T).mul_(whole).numpy()


def _turned(mask: torch.Tensor, grid: Grid) -> torch.Tensor:
    """A mask of bands × (runs · taps) as runs × (bands · taps)."""
    return mask.reshape(grid.pieces[0], grid.pieces[1], -1).transpose(0, 1).reshape(grid.pieces[1], -1)
