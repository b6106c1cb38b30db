"""Overlays: every one that can be had fits its device and its switches, and columns are neighbours where those carry it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from zellige.aie2.check import check
from zellige.aie2.device import DEVICES
from zellige.aie2.overlay import Overlay, fixed_parts, overlay
from zellige.aie2.program import Program


def empty(on: Overlay) -> Program:
    """The overlay without a network."""
    buffers, locks, flows, cores = fixed_parts(on)
    return Program("empty", on.device.name, buffers, (), locks, flows, cores, {}, (), {}, {})


def sizes(name: str) -> Iterator[tuple[int, int]]:
    device = DEVICES[name]
    return ((rows, columns) for rows in range(1, device.core_rows + 1) for columns in range(1, len(device.shim_columns) + 1))


@pytest.mark.full
@pytest.mark.parametrize("name", DEVICES)
def test_every_overlay_fits_and_is_routed(name: str) -> None:
    for rows, columns in sizes(name):
        check(empty(overlay(DEVICES[name], rows, columns)))


@pytest.mark.parametrize("name, rows, columns", [("ve2802", 8, 6), ("ve2802", 4, 7), ("ve2802", 8, 8), ("ve2802", 4, 12),
                                                 ("ve2302", 2, 6), ("npu1", 4, 4), ("npu2", 4, 8), ("paper", 8, 8)])  # fmt: skip
def test_the_largest_overlays_are_routed(name: str, rows: int, columns: int) -> None:
    check(empty(overlay(DEVICES[name], rows, columns)))


@pytest.mark.parametrize("name", DEVICES)
def test_columns_are_neighbours_or_above_their_shims(name: str) -> None:
    for rows, columns in sizes(name):
        on = overlay(DEVICES[name], rows, columns)
        assert len(set(on.places)) == len(set(on.shims)) == columns and set(on.shims) <= set(on.device.shim_columns)
        side_by_side = on.places == tuple(range(on.places[0], on.places[0] + columns))
        assert side_by_side if name != "ve2802" or columns <= 6 else on.places == on.shims
