"""The transforms of Winograd's F(4, 4) along rows, as a matrix and as code on vectors of tiles.

A *tile* is 4 neighbouring outputs of a filter of 4 taps; it depends on a *window* of 7 inputs. There are 7 points: ±1/2, ±1, ±2 and
infinity. They come in pairs, so that a transform does the even and the odd powers once for both (Barabasz et al., "Error
analysis and improving the accuracy of Winograd convolution for deep neural networks", 2020, compare points; among
pairs these lose little, about twice what a direct sum loses).
"""

from __future__ import annotations

import llvmlite.ir as ir
import numpy as np

from zellige.cpu.emitter import Emitter

TILE, TAPS = 4, 4
POINTS = TILE + TAPS - 1
PAIRS = (0.5, 1.0, 2.0)


def filter_transform() -> np.ndarray:
    """7 × 4: the weights at all points from a filter's taps.

    >>> filter_transform().shape, filter_transform()[-1].tolist()
    ((7, 4), [0.0, 0.0, 0.0, 1.0])
    """
    finite = [sign * point for point in PAIRS for sign in (1.0, -1.0)]
    scale = [np.prod([point - other for other in finite if other != point]) for point in finite]
    rows = [[point**tap / factor for tap in range(TAPS)] for point, factor in zip(finite, scale, strict=True)]
    return np.array([*rows, [0.0] * (TAPS - 1) + [1.0]])


def _polynomial(roots: list[float]) -> list[float]:
    """The coefficients of ∏ (x² − root²), of x⁰, x², x⁴, …"""
    coefficients = np.ones(1)
    for root in roots:
        coefficients = np.convolve(coefficients, [-root * root, 1.0])
    return [float(value) for value in coefficients]


def _combine(b: Emitter, coefficients: list[float], values: list[ir.Value]) -> ir.Value:
    """Σ coefficient · value; the last coefficient is 1."""
    total = values[-1]
    for coefficient, value in zip(coefficients[:-1], values[:-1], strict=True):
        total = b.multiply_add(coefficient, value, total)
    return total


def to_points(b: Emitter, d: list[ir.Value]) -> list[ir.Value]:
    """The 7 inputs of a window to 7 points: +, − of every pair, then infinity."""
    points = []
    for pair in PAIRS:
        others = _polynomial([other for other in PAIRS if other != pair])
        even, odd = _combine(b, others, d[0:5:2]), _combine(b, others, d[1:6:2])
        points += [b.multiply_add(pair, even, odd), b.multiply_add(-pair, even, odd)]
    return [*points, _combine(b, _polynomial(list(PAIRS)), d[0:7:2])]


def from_points(b: Emitter, m: list[ir.Value], bias: ir.Value) -> list[ir.Value]:
    """7 points to the 4 outputs of a tile, and their bias."""
    sums = [b.fadd(m[2 * number], m[2 * number + 1]) for number in range(len(PAIRS))]
    differences = [b.fsub(m[2 * number], m[2 * number + 1]) for number in range(len(PAIRS))]
    outputs = []
    for power in range(TILE):
        total = b.fadd(bias, m[-1]) if power == TILE - 1 else bias
        for pair, value in zip(PAIRS, differences if power % 2 else sums, strict=True):
            total = b.multiply_add(pair**power, value, total)
        outputs.append(total)
    return outputs


def load_windows(b: Emitter, source: ir.Value) -> list[ir.Value]:
    """The 7 inputs of as many neighbouring tiles as there are lanes: input j of tile t is ``source[4 · t + j]``."""
    near = split_tiles(b, [b.load_vector(b.at(source, part * b.isa.lanes)) for part in range(TILE)])
    far = split_tiles(b, [b.load_vector(b.at(source, TILE - 1 + part * b.isa.lanes)) for part in range(TILE)])
    # Four on from the near ones; loads that begin one before them end with the last input of the last window.
    return near + far[1:]


def split_tiles(b: Emitter, vectors: list[ir.Value]) -> list[ir.Value]:
    """Four vectors of neighbouring pixels to four of pixels 0, 1, 2, 3 of every tile."""
    lanes, half = b.isa.lanes, b.isa.lanes // 2
    split = []
    for pixel in range(TILE):
        chosen = [TILE * tile + pixel for tile in range(half)]
        halves = [b.shuffle(vectors[2 * side], vectors[2 * side + 1], chosen * 2) for side in range(2)]
        split.append(b.shuffle(halves[0], halves[1], [*range(half), *range(lanes, lanes + half)]))
    return split


def join_tiles(b: Emitter, pixels: list[ir.Value]) -> list[ir.Value]:
    """The other way: pixels 0, 1, 2, 3 of every tile to four vectors of neighbouring pixels."""
    lanes = b.isa.lanes
    joined = []
    for part in range(TILE):
        place = [part * lanes + lane for lane in range(lanes)]
        pairs = [b.shuffle(pixels[first], pixels[first + 1], [at // TILE + lanes * (at % 2) for at in place]) for first in (0, 2)]
        joined.append(b.shuffle(pairs[0], pairs[1], [lane + lanes * (place[lane] % TILE // 2) for lane in range(lanes)]))
    return joined
