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


def two_below(drawn: int, limits: tuple[int, int]) -> list[int]:
    return [(drawn >> shift & (1 << 26) - 1) * limit >> 26 for shift, limit in zip((0, 26), limits, strict=True)]


def exchanged(tables: dict[str, np.ndarray], sizes: dict[str, int], meetings: int) -> dict[str, np.ndarray]:
    """What the kernel should make of its tables."""
    places, lines, length, tries = tables["places"].copy(), sizes["lines"], sizes["length"], sizes["tries"]
    sums, excesses, bounds = (tables[name].astype(np.float64) for name in ("sums", "excesses", "bounds"))

    def drawn(number: int) -> int:
        return split_mix((sizes["seed"] + number * 0x9E3779B97F4A7C15) & MASK)

    for meeting in (meeting for share in shares(meetings) for meeting in range(*share)):
        first = meeting * (tries + 1)
        one, other = two_below(drawn(first), (sizes["pieces"], sizes["pieces"]))
        for number in range(first + 1, first + 1 + tries) if one != other else ():
            within = two_below(drawn(number), (min(length, lines - one * length), min(length, lines - other * length)))
            here, there = one * length + within[0], other * length + within[1]
            change = sums[places[there]] - sums[places[here]]
            gain = sum(np.abs(after).sum() - np.abs(before).sum() for after, before in (
                (excesses[one] + change, excesses[one]), (excesses[other] - change, excesses[other])))
            if gain > bounds[drawn(number) >> 52]:
                excesses[one] += change
                excesses[other] -= change
                places[[here, there]] = places[[there, here]]
    return {"places": places, "excesses": excesses, "totals": np.abs(excesses).sum(1)}


@given(pieces=st.integers(1, 5), length=st.integers(1, 5), short=st.integers(0, 4), vectors=st.integers(1, 3),
       seed=st.integers(0, MASK), meetings=st.integers(0, 40), tries=st.integers(1, 8), heat=st.sampled_from([0.0, 10.0, 1000.0]),
       isa=st.sampled_from(NATIVE))
def test_any_lines_and_pieces(pieces, length, short, vectors, seed, meetings, tries, heat, isa):
    random = np.random.default_rng(seed)
    lines, width = pieces * length - min(short, length - 1), vectors * LANES
    tables = {
        "places": random.permutation(lines).astype(np.int32),
        "sums": random.integers(0, 100, (lines, width)).astype(np.float32),
        "excesses": random.integers(-300, 300, (pieces, width)).astype(np.float32),
        "bounds": (heat * np.log((np.arange(BOUNDS) + 0.5) / BOUNDS)).astype(np.float32),
    }
    tables["totals"] = np.abs(tables["excesses"]).sum(1)
    signed = seed - (1 << 64) if seed >> 63 else seed
    sizes = {"lines": lines, "pieces": pieces, "length": length, "width": width, "tries": tries, "seed": signed}
    expected = exchanged(tables, sizes, meetings)
    run_kernel(ExchangeKernel(), {**tables, **sizes}, meetings, isa, changed=["places"])
    for name, array in expected.items():
        np.testing.assert_array_equal(tables[name], array, err_msg=name)


def test_compiles_for_every_instruction_set():
    check_assembly(ExchangeKernel())
