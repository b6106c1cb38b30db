"""The exchange kernel against exchanges in float64, one after another; all sums are whole numbers, so float32 has them exactly."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from kernel_harness import NATIVE, check_assembly, run_kernel, shares

from zellige.cpu.kernels.exchange import BOUNDS, LANES, ExchangeKernel

MASK = (1 << 64) - 1


def split_mix(state: int) -> int:
    """The finaliser of SplitMix64."""
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & MASK
    return state ^ (state >> 31)


def exchanged(tables: dict[str, np.ndarray], lines: int, seed: int, tries: int) -> dict[str, np.ndarray]:
    """What the kernel should make of its tables."""
    standing, pieces = tables["place_lines"].copy(), tables["place_pieces"]
    sums, excesses, bounds = (tables[name].astype(np.float64) for name in ("sums", "excesses", "bounds"))
    for number in (number for share in shares(tries) for number in range(*share)):
        drawn = split_mix((seed + number * 0x9E3779B97F4A7C15) & MASK)
        here, there = ((drawn >> shift & (1 << 26) - 1) * lines >> 26 for shift in (0, 26))
        one, other = pieces[here], pieces[there]
        if one == other:
            continue
        change = sums[standing[there]] - sums[standing[here]]
        gain = sum(np.abs(after).sum() - np.abs(before).sum() for after, before in (
            (excesses[one] + change, excesses[one]), (excesses[other] - change, excesses[other])))
        if gain > bounds[drawn >> 52]:
            excesses[one] += change
            excesses[other] -= change
            standing[[here, there]] = standing[[there, here]]
    return {"place_lines": standing, "excesses": excesses, "totals": np.abs(excesses).sum(1)}


@given(pieces=st.integers(1, 5), length=st.integers(1, 5), short=st.integers(0, 4), vectors=st.integers(1, 3), seed=st.integers(0, MASK),
       tries=st.integers(0, 300), heat=st.sampled_from([0.0, 10.0, 1000.0]), isa=st.sampled_from(NATIVE))
def test_any_lines_and_pieces(pieces, length, short, vectors, seed, tries, heat, isa):
    random = np.random.default_rng(seed)
    lines, width = pieces * length - min(short, length - 1), vectors * LANES
    tables = {
        "place_lines": random.permutation(lines).astype(np.int32),
        "place_pieces": (np.arange(lines) // length).astype(np.int32),
        "sums": random.integers(0, 100, (lines, width)).astype(np.float32),
        "excesses": random.integers(-300, 300, (pieces, width)).astype(np.float32),
        "bounds": (heat * np.log((np.arange(BOUNDS) + 0.5) / BOUNDS)).astype(np.float32),
    }
    tables["totals"] = np.abs(tables["excesses"]).sum(1)
    expected = exchanged(tables, lines, seed, tries)
    signed = seed - (1 << 64) if seed >> 63 else seed
    run_kernel(ExchangeKernel(), {**tables, "lines": lines, "width": width, "seed": signed}, tries, isa, changed=["place_lines"])
    for name, array in expected.items():
        np.testing.assert_array_equal(tables[name], array, err_msg=name)


def test_compiles_for_every_instruction_set():
    check_assembly(ExchangeKernel())
