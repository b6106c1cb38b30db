"""Planes, vectors over them, tiles of vectors: against index arithmetic done one pixel at a time."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zellige.cpu.isa import AVX2, AVX512, NEON, Isa
from zellige.cpu.kernels.band import Tile
from zellige.cpu.layout import LINE, Margins, Planes, planes
from zellige.cpu.tables.tiles import cut_pixels, singles_beside, tile_items, tile_widths, widest_tile
from zellige.cpu.tables.vectors import flat_vectors, row_vectors, run_entries

margins = st.builds(Margins, *[st.integers(0, 4)] * 4)
maps = st.builds(planes, st.integers(1, 3), st.integers(1, 4), st.integers(1, 9), st.integers(1, 40), margins, st.integers(0, 50))
lanes = st.sampled_from([4, 8, 16])


def pixels(layout: Planes) -> set[int]:
    """Offsets of all pixels of a plane, relative to pixel (0, 0)."""
    return {n * layout.image + y * layout.row + x
            for n in range(layout.images) for y in range(layout.height) for x in range(layout.width)}


@given(maps)
def test_margins_lie_inside_of_the_plane_and_hold_no_pixel(layout: Planes) -> None:
    data = pixels(layout)
    assert len(data) == layout.pixels
    top, bottom, left, right = layout.margins.top, layout.margins.bottom, layout.margins.left, layout.margins.right
    for n in range(layout.images):
        for y in range(-top, layout.height + bottom):
            for x in range(-left, layout.width + right):
                place = n * layout.image + y * layout.row + x
                assert -layout.head <= place < layout.plane - layout.head
                inside = 0 <= y < layout.height and 0 <= x < layout.width
                assert (place in data) == inside
    assert layout.plane % (2 * LINE) == LINE and layout.head % LINE == 0


@given(maps)
def test_margin_runs_are_what_no_row_holds(layout: Planes) -> None:
    rows = {n * layout.image + place for n in range(layout.images) for place in range(layout.span)}
    runs = [place for begin, length in layout.margin_runs() for place in range(begin, begin + length)]
    assert len(runs) == len(set(runs))
    assert set(runs) == set(range(-layout.head, layout.plane - layout.head)) - rows


def check_vectors(table: np.ndarray, source: Planes, target: Planes, lanes: int, stride: tuple[int, int]) -> None:
    where = {n * target.image + y * target.row + x: n * source.image + y * stride[0] * source.row + x * stride[1]
             for n in range(target.images) for y in range(target.height) for x in range(target.width)}
    rows = {n * target.image + place for n in range(target.images) for place in range(target.span)}
    seen, written = {}, []
    for source_offset, target_offset, inside, store in table.tolist():
        for lane in range(lanes):
            if store >> lane & 1:
                written.append(target_offset + lane)
            if inside >> lane & 1:
                assert store >> lane & 1
                seen[target_offset + lane] = source_offset + lane * stride[1]
    assert seen == where
    assert sorted(written) == sorted(rows)


@given(maps, st.integers(1, 9), st.integers(1, 40), margins, lanes)
def test_flat_vectors_cover_every_row_once(target: Planes, height: int, width: int, sides: Margins, lanes: int) -> None:
    source = planes(target.images, 1, height, width, sides, target.row)
    target = planes(target.images, 1, target.height, target.width, target.margins, source.row)
    check_vectors(flat_vectors(source, target, lanes), source, target, lanes, (1, 1))


@given(maps, maps, lanes, st.tuples(st.integers(1, 3), st.integers(1, 3)))
def test_row_vectors_cover_every_row_once(target: Planes, other: Planes, lanes: int, stride: tuple[int, int]) -> None:
    source = planes(target.images, 1, other.height, other.width, other.margins, other.row)
    check_vectors(row_vectors(source, target, lanes, stride), source, target, lanes, stride)


@given(st.integers(1, 200), st.integers(1, 8))
def test_tiles_cover_all_vectors_and_avoid_single_ones(vectors: int, widest: int) -> None:
    widths = tile_widths(vectors, widest)
    assert sum(widths) == vectors and max(widths) <= widest
    if vectors > 1 and widest > 2:
        assert min(widths) >= 2


@given(st.integers(1, 900), st.sampled_from([1, 2, 4, 8]), st.sampled_from([AVX512, AVX2, NEON]))
def test_tiles_take_every_pixel_once_and_no_more_work_than_vectors(count: int, rows: int, isa: Isa) -> None:
    tiles = cut_pixels(count, rows, isa)
    entries = run_entries(tiles, count, isa.lanes)
    assert len(entries) == sum(tile.entries for tile in tiles)
    taken = [place + lane for _, place, inside, store in entries.tolist() for lane in range(isa.lanes) if inside >> lane & 1]
    assert sorted(taken) == list(range(count))
    for tile in tiles:
        assert tile.vectors <= widest_tile(rows, isa) and tile.singles <= singles_beside(tile.vectors, rows, isa)
    multiply_adds = sum(rows * tile.vectors + tile.singles for tile in tiles)
    assert multiply_adds <= rows * -(-count // isa.lanes)


def test_the_last_tiles_of_a_map_of_fourteen_by_fourteen_have_the_singles() -> None:
    assert cut_pixels(14 * 14, 8, AVX512) == [Tile(3), Tile(3), Tile(3, 2), Tile(3, 2)]
    assert sorted(cut_pixels(17 * 17, 8, AVX512)) == [Tile(3, 0)] * 5 + [Tile(3, 1)]


@given(st.lists(st.builds(Tile, st.integers(1, 3), st.integers(0, 2)), min_size=1, max_size=20), st.integers(1, 20))
def test_items_are_every_tile_with_every_band_once(tiles: list[Tile], bands: int) -> None:
    items = tile_items(tiles, bands)
    first = np.cumsum([0, *(tile.entries for tile in tiles[:-1])]).tolist()
    expected = {(begin, *tile, band) for begin, tile in zip(first, tiles, strict=True) for band in range(bands)}
    assert len(items) == len(expected) and set(map(tuple, items.tolist())) == expected
