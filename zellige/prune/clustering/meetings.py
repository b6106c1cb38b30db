"""Meetings of pieces, run as machine code: ``cpu/kernels/exchange.py`` with its arguments."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch

from zellige.cpu.code import build_kernels
from zellige.cpu.host import host_isa
from zellige.cpu.kernels.exchange import BOUNDS, LANES, ExchangeKernel
from zellige.cpu.toolchain import Library

TRIES = 16
"""How many exchanges two pieces try that have met."""


def padded_width(blocks: int) -> int:
    """Of rows of so many numbers, how long the kernel has them."""
    return -(-blocks // LANES) * LANES


def padded(values: torch.Tensor) -> np.ndarray:
    """The values, and zeros behind them in every row."""
    rows = torch.zeros(len(values), padded_width(values.shape[1]))
    rows[:, : values.shape[1]] = values
    return rows.numpy()


def exchange_lines(order: np.ndarray, length: int, sums: np.ndarray, excesses: np.ndarray, temperature: float, meetings: int,
                   seed: int) -> np.ndarray:
    """The order of lines after so many meetings of pieces drawn at random.

    Args:
        order: which line stands where. Each ``length`` of them are a piece; the last may be shorter.
        sums: what each line holds in each block of a piece, ``padded``. Where several matrices share the axis and are cut alike,
            their blocks stand side by side.
        excesses: what is in each block of each piece beyond the threshold, ``padded``; changed.
        temperature: what an exchange may cost Σ |excess| to be taken in one case of e; at 0, only what gains is taken.
    """
    places, totals = order.astype(np.int32), np.abs(excesses).sum(1)
    arrays = (places, sums, excesses, totals, _log_uniform() * np.float32(temperature))
    numbers = (len(order), len(excesses), length, sums.shape[1], TRIES, seed)
    slots = np.array([*(array.ctypes.data for array in arrays), *numbers], np.int64)
    run, _ = _compiled()
    run(slots.ctypes.data, 0, meetings, 0)
    return places.astype(np.int64)


@cache
def _log_uniform() -> np.ndarray:
    """The logarithms of equally spaced numbers from 0 to 1."""
    return np.array([math.log((number + 0.5) / BOUNDS) for number in range(BOUNDS)], np.float32)


@cache
def _compiled() -> tuple[Callable[[int, int, int, int], None], tuple[Library, ...]]:
    """The kernel, and the libraries that hold its code and must be kept."""
    kernel = ExchangeKernel()
    code, libraries = build_kernels([kernel], host_isa())
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
    return prototype(code[kernel]), libraries
