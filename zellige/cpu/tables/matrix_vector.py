"""Tables of the matrix-vector kernel: the kept columns as entries of neighbours, bands × tokens as work items."""

from __future__ import annotations

import numpy as np

from zellige.cpu.kernels.matrix_vector import ROWS
from zellige.cpu.tables.work import Work
from zellige.passes.sparsity import Bands

GROUP = 8               # columns of one list entry, where whole runs are kept
TOKENS = (4, 1)         # vectors of a batch that share one pass over the weights
ITEM_CYCLES = 40
BYTES_PER_CYCLE = 10    # of weights from memory, one core


def matrix_vector_work(bands: Bands, bias: np.ndarray, features: int, tokens: int) -> tuple[int, tuple[int, ...], Work]:
    """The group and the token counts, which choose the kernel's variant, and its tables.

    ``bands`` have 8 rows; there are ``tokens`` vectors of ``features`` inputs.
    """
    group, starts, columns, values = best_entries(bands, features)
    items = token_items(len(bands), tokens)
    counts = np.diff(starts)[items[:, 0]] * group
    costs = np.maximum(counts * ROWS * 4 / BYTES_PER_CYCLE, counts * items[:, 2]) + ITEM_CYCLES
    return group, tuple(sorted(set(items[:, 2].tolist()), reverse=True)), Work({
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


def best_entries(bands: Bands, features: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """The columns as entries of one or of ``GROUP`` neighbours, whichever is fewer bytes: the group, where each
    band's entries start, each entry's first column, and the weights as [entry][column][8 rows]."""
    group = 1
    if features >= GROUP:
        entry_bytes = 4 * (1 + GROUP * ROWS)
        if np.count_nonzero(begins_entry(bands, GROUP)) * entry_bytes <= len(bands.channel) * 4 * (1 + ROWS):
            group = GROUP
    return (group, *entries(bands, features, group))


def begins_entry(bands: Bands, group: int) -> np.ndarray:
    """Which columns are the first of their entry: the first of a band, or of another run of ``group`` columns."""
    first = np.ones(len(bands.channel), bool)
    run = bands.channel // group
    first[1:] = run[1:] != run[:-1]
    first[bands.start[:-1][np.diff(bands.start) > 0]] = True
    return first


def entries(bands: Bands, features: int, group: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The columns of every band, cut into groups; the last group of a row is moved back to end with the row."""
    begins = begins_entry(bands, group)
    starts = np.concatenate([[0], np.cumsum(begins)])[bands.start]
    entry = np.cumsum(begins) - 1
    columns = np.minimum(bands.channel[begins] // group * group, features - group)
    member = bands.channel - columns[entry]
    if (bands.rows == ROWS).all():
        if group == 1:
            return starts, columns.astype(np.int32), bands.values
        values = np.zeros((len(columns), group, ROWS), np.float32)
        values[entry, member] = bands.values.reshape(-1, ROWS)
        return starts, columns.astype(np.int32), values
    values = np.zeros((len(columns), group, ROWS), np.float32)
    for band in range(len(bands)):
        here = slice(bands.start[band], bands.start[band + 1])
        values[entry[here], member[here], :bands.rows[band]] = bands.weights(band)
    return starts, columns.astype(np.int32), values
