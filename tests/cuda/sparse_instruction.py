"""A slow emulator of the sparse tensor core instructions, lane by lane, as the PTX ISA lays their operands out.

Nothing here knows how weights are packed: it takes what 32 lanes hold in their registers and gives what they hold afterwards.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def matrix_a(a: NDArray, metadata: NDArray[np.uint32], selector: int) -> NDArray:
    """The 16 × 32 matrix that 32 lanes hold: 8 compressed values a lane, metadata of the two lanes of four that are selected."""
    compressed = np.zeros((16, 16), a.dtype)
    for lane in range(32):
        group, thread = divmod(lane, 4)
        for i in range(8):
            row = group if i in (0, 1, 4, 5) else group + 8
            column = thread * 2 + (i & 1) + (0 if i < 4 else 8)
            compressed[row, column] = a[lane, i]
    matrix = np.zeros((16, 32), a.dtype)
    for row in range(16):
        for chunk in range(8):
            lane = 4 * (row % 8) + 2 * selector + chunk // 4
            bits = int(metadata[lane]) >> (16 * (row // 8) + 4 * (chunk % 4)) & 15
            first, second = bits & 3, bits >> 2
            assert first < second, f"metadata {bits:04b} of lane {lane} is not ordered"
            matrix[row, 4 * chunk + first] = compressed[row, 2 * chunk]
            matrix[row, 4 * chunk + second] = compressed[row, 2 * chunk + 1]
    return matrix


def matrix_b(b: NDArray) -> NDArray:
    """The 32 × 8 matrix that 32 lanes hold, 8 values a lane."""
    matrix = np.zeros((32, 8), b.dtype)
    for lane in range(32):
        group, thread = divmod(lane, 4)
        for i in range(8):
            matrix[thread * 2 + (i & 1) + 8 * (i // 2), group] = b[lane, i]
    return matrix


def lanes_of_d(matrix: NDArray) -> NDArray:
    """4 values a lane of a 16 × 8 matrix."""
    d = np.zeros((32, 4), matrix.dtype)
    for lane in range(32):
        group, thread = divmod(lane, 4)
        for i in range(4):
            d[lane, i] = matrix[group + 8 * (i // 2), thread * 2 + (i & 1)]
    return d


def mma_sp(a: NDArray, b: NDArray, c: NDArray, metadata: NDArray[np.uint32], selector: int) -> NDArray:
    """``mma.sp::ordered_metadata.m16n8k32``: what the lanes hold of D = A·B + C."""
    return c + lanes_of_d(matrix_a(a, metadata, selector) @ matrix_b(b))


def load_matrix_transposed(shared: NDArray[np.uint8], addresses: NDArray[np.int64]) -> NDArray[np.uint16]:
    """``ldmatrix.x4.trans``: four 8 × 8 matrices of 16-bit numbers, 8 lanes giving the rows of each; 8 numbers a lane."""
    result = np.zeros((32, 8), np.uint16)
    for matrix in range(4):
        rows = np.stack([shared[address : address + 16].view(np.uint16) for address in addresses[8 * matrix : 8 * matrix + 8]])
        for lane in range(32):
            for i in range(2):
                result[lane, 2 * matrix + i] = rows[2 * (lane % 4) + i, lane // 4]
    return result
