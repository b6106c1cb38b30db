"""Tables of the matrix-vector kernel: the kept columns as entries of a list, bands × tokens as work items."""

from __future__ import annotations

import numpy as np

from zellige.cpu.kernels.matrix_vector import ROWS, Entry
from zellige.cpu.tables.work import Work
from zellige.passes.sparsity import Bands

RUNS = Entry(8)         # where whole runs of columns are kept
SINGLES = Entry(4, named=True)  # where few neighbours are; enough for as many chains of sums
TOKENS = (4, 1)         # vectors of a batch that share one pass over the weights
ITEM_CYCLES = 40
BYTES_PER_CYCLE = 10    # of weights from memory, one core


def matrix_vector_work(bands: Bands, bias: np.ndarray, features: int, tokens: int) -> tuple[Entry, tuple[int, ...], Work]:
    """What list entries are and the token counts, which choose the kernel's variant, and its tables.

    ``bands`` have 8 rows; there are ``tokens`` vectors of ``features`` inputs.
    """
    kind = best_entries(bands, features)
    starts, columns, values = (single_entries if kind.named else run_entries)(bands, features, kind.columns)
    items = token_items(len(bands), tokens)
    counts = np.diff(starts)[items[:, 0]] * kind.columns
    costs = np.maximum(counts * ROWS * 4 / BYTES_PER_CYCLE, counts * items[:, 2]) + ITEM_CYCLES
    return kind, tuple(sorted(set(items[:, 2].tolist()), reverse=True)), Work({
        "items": items, "columns": columns, "weights": values,
        "bands": np.stack([starts[:-1], starts[1:], bands.first_row, bands.rows], 1).astype(np.int32),
        "bias": np.concatenate([bias, np.zeros(ROWS, np.float32)]), "source_token": features, "target_token": len(bias),
    }, costs)


def token_items(bands: int, tokens: int) -> np.ndarray:
    """Work items (band, first token, tokens): all tokens of one band in turn, so that its weights stay in the cache."""
    counts = [TOKENS[0]] * (tokens // TOKENS[0]) + [1] * (tokens % TOKENS[0])
    first = np.cumsum([0, *counts[:-1]])
    band = np.repeat(np.arange(bands), len(counts))
    return np.stack([band, np.tile(first, bands), np.tile(counts, bands)], 1).astype(np.int32)


def best_entries(bands: Bands, features: int) -> Entry:
    """Runs of neighbours, or columns that are each named: whichever is fewer bytes."""
    run_bytes = 4 * (1 + RUNS.columns * ROWS)
    if features >= RUNS.columns and begins_entry(bands, RUNS.columns).sum() * run_bytes <= len(bands.channel) * 4 * (1 + ROWS):
        return RUNS
    return SINGLES


def begins_entry(bands: Bands, run: int) -> np.ndarray:
    """Which columns are the first of their entry: the first of a band, or of another run of so many columns."""
    first = np.ones(len(bands.channel), bool)
    place = bands.channel // run
    first[1:] = place[1:] != place[:-1]
    first[bands.start[:-1][np.diff(bands.start) > 0]] = True
    return first


Entries = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Where each band's entries start, the columns that entries name, and the weights as [entry][column][8 rows]."""


def run_entries(bands: Bands, features: int, run: int) -> Entries:
    """The columns of every band, cut into runs; the last run of a row is moved back to end with the row."""
    begins = begins_entry(bands, run)
    starts = np.concatenate([[0], np.cumsum(begins)])[bands.start]
    entry = np.cumsum(begins) - 1
    columns = np.minimum(bands.channel[begins] // run * run, features - run)
    return starts, columns.astype(np.int32), _placed(bands, (len(columns), run), entry * run + bands.channel - columns[entry])


def single_entries(bands: Bands, features: int, together: int) -> Entries:
    """The columns of every band one by one, so many to an entry; the last entry of a band repeats a column, with weights of 0."""
    counts = np.diff(bands.start)
    starts = np.concatenate([[0], np.cumsum(-(-counts // together))])
    place = np.arange(len(bands.channel)) + np.repeat(starts[:-1] * together - bands.start[:-1], counts)
    columns = np.repeat(np.append(bands.channel, 0)[bands.start[1:] - 1], np.diff(starts) * together)
    columns[place] = bands.channel
    return starts, columns.astype(np.int32), _placed(bands, (int(starts[-1]), together), place)


def _placed(bands: Bands, entries: tuple[int, int], place: np.ndarray) -> np.ndarray:
    """Weights of so many entries of so many columns: those of every kept column at its place, zeros elsewhere."""
    values = np.zeros((entries[0] * entries[1], ROWS), np.float32)
    if (bands.rows == ROWS).all():
        values[place] = bands.values.reshape(-1, ROWS)
    else:
        for band in range(len(bands)):
            values[place[bands.start[band]:bands.start[band + 1]], :bands.rows[band]] = bands.weights(band)
    return values.reshape(*entries, ROWS)
