"""Tables of the band kernel where it stages its source: parts of the map, and the copies that each of them needs.

The planes of a part hold the rows that its tiles read, so neighbouring parts have a row or two in common. Rows lie in them as in
planes of the whole map, which are only longer: those of a part begin with its first row.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from zellige.cpu.isa import Isa
from zellige.cpu.kernels.band import Tile
from zellige.cpu.layout import LINE, Layout, Planes, planes
from zellige.cpu.tables.band import Taps, band_work, cut_map
from zellige.cpu.tables.lanes import copy_items
from zellige.cpu.tables.parts import cut_parts, with_beginnings
from zellige.cpu.tables.tiles import first_entries, widest_tile
from zellige.cpu.tables.vectors import SOURCE
from zellige.cpu.tables.windows import stage_work
from zellige.cpu.tables.work import Work, table
from zellige.passes.sparsity import Bands

PART_ROWS = 14      # of the map, about as many as a part has: those that two parts have in common are copied twice
FEWEST_TILES = 2    # of a half of the map
COPY_TARGET = 1     # the column of a copy's table of vectors that says where in the target they are

Padding = tuple[int, int, int, int]
"""Top, bottom, left and right."""


def staged_layout(channels: int, taps: Taps, target: Planes) -> Planes:
    """Planes of a whole map, with rows as long as the target's; all that its pixels' taps read lies inside."""
    assert taps.stage
    _, down, right = taps.stage.place(*taps.positions(np.arange(taps.count)))
    return planes(target.images, channels * taps.stage.planes, target.height + int(down.max()), target.width + int(right.max()),
                  row=target.row)


def staged_band_work(bands: Bands, bias: np.ndarray, taps: Taps, source: Layout, target: Planes, padding: Padding, mode: str,
                     rows: int, isa: Isa) -> tuple[tuple[Tile, ...], int, Work]:
    """The shapes of tiles, which choose the kernel's variant; the elements of scratch that a thread needs; and the tables."""
    whole = staged_layout(source.shape[1], taps, target)
    tiles, entries = cut_map(whole, target, rows, isa)
    most = max(1, PART_ROWS * target.row // (widest_tile(rows, isa) * isa.lanes))
    first_tiles = cut_parts(len(tiles), FEWEST_TILES, most)[:, 0]
    parts = np.split(entries[:, SOURCE], first_entries(tiles)[first_tiles[1:]])
    spans = np.array([(part.min(), part.max() + reach(taps, whole) + isa.lanes) for part in parts])
    copies, ends, starts, plane = copies_of_parts(spans, source, whole, taps, padding, mode, isa.lanes)
    shapes, work = band_work(bands, bias, taps, replace(whole, plane=plane), target, rows, isa)
    items = work.tables["items"]
    assert isinstance(items, np.ndarray)
    part_of_entry = np.repeat(np.arange(len(parts)), list(map(len, parts)))
    part_of_item = part_of_entry[items[:, 0]]
    entries[:, SOURCE] -= starts[part_of_entry]
    done = np.concatenate([[0], copies.costs.cumsum()])[ends]
    stages = table(ends[part_of_item], ends[part_of_item + 1])
    costs = with_beginnings(work.costs, part_of_item, np.diff(done))
    tables = work.tables | {"vectors": entries, "stages": stages, "copies": copies.tables["items"],
                            "copy_vectors": copies.tables["vectors"], "copy_indices": copies.tables["indices"],
                            "fill": copies.tables["fill"]}
    return shapes, whole.channels * plane, Work(tables, costs)


def reach(taps: Taps, staged: Planes) -> int:
    """How far behind an output pixel's own place its last tap lies in a staged plane."""
    assert taps.stage
    _, down, right = taps.stage.place(*taps.positions(np.arange(taps.count)))
    return int((down * staged.row + right).max())


def copies_of_parts(spans: np.ndarray, source: Layout, whole: Planes, taps: Taps, padding: Padding, mode: str,
                    lanes: int) -> tuple[Work, np.ndarray, np.ndarray, int]:
    """The copies of every part, given the ``spans`` (first, end) of staged planes that it reads: the work of all of them, where
    each part's copies begin and end in it, where its planes begin in those of the whole map, and how long they are."""
    assert taps.stage
    phases, channels = taps.stage.planes, source.shape[1]
    copies = stage_work(source, whole, taps.stage, padding, mode, lanes)
    items, vectors = copies.tables["items"], copies.tables["vectors"]
    assert isinstance(items, np.ndarray) and isinstance(vectors, np.ndarray)
    vectors = vectors.reshape(phases, -1, vectors.shape[1])
    places = vectors[0, :, COPY_TARGET] + np.arange(whole.images)[:, None] * whole.image
    needed = (places + lanes > spans[:, 0, None, None]) & (places < spans[:, 1, None, None])
    starts = np.array([places[part].min() // LINE * LINE for part in needed])
    longest = max(int(places[part].max()) + lanes - start for part, start in zip(needed, starts, strict=True))
    plane = int(-(-longest // LINE) | 1) * LINE
    vectors[:, :, COPY_TARGET] += np.arange(phases)[:, None] * plane
    source_offset = items[:, 2].reshape(whole.images, -1)[:, ::phases]
    chosen, copied, count = [], [], 0
    for part, start in zip(needed, starts, strict=True):
        for image in range(whole.images):
            copied.append(vectors[:, part[image]].reshape(-1, vectors.shape[2]))
            target_offset = image * whole.image + np.arange(channels) * phases * plane - start
            chosen.append(table(np.int64(count), np.int64(count + len(copied[-1])), source_offset[image], target_offset))
            count += len(copied[-1])
    first, end, *offsets = np.concatenate(chosen).T
    tables = {"vectors": np.concatenate(copied), "indices": copies.tables["indices"], "fill": copies.tables["fill"]}
    return copy_items(tables, first, end, *offsets), np.arange(len(spans) + 1) * whole.images * channels, starts, plane
