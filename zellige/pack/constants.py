"""A graph's constants as the tensors of a file, and the table that says how each is stored.

A constant is stored as ``dense/NAME``, or as ``kept/NAME`` and ``values/NAME`` (``blocks.py``), whichever takes fewer
bytes. The table has one entry per constant, in the graph's order: ``dtype``, ``shape``, and ``block``, which is
``None`` or [rows, columns, taps].
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from zellige.errors import FileFormatError
from zellige.graph.ir import DTYPES
from zellige.pack.blocks import PackedWeight, pack_smallest, unpack_blocks

Table = dict[str, dict[str, Any]]

ITEMSIZES = {name: np.dtype(numpy_name).itemsize for numpy_name, name in DTYPES.items()}

MOST_DIMENSIONS = 8
LARGEST_SIZE = 1 << 40

ROOMY = 1 << 30
RATIO = 256
"""Constants that unpack to more than ``ROOMY`` bytes and more than ``RATIO`` times the file's are refused: that is no
network, but a trap for the reader's memory."""


def store_constants(constants: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], Table]:
    """The tensors that hold ``constants``, and the table; no NaN, no infinity, no unknown element types."""
    tensors: dict[str, np.ndarray] = {}
    table: Table = {}
    for name, constant in constants.items():
        array = np.asarray(constant, constant.dtype.newbyteorder("<"), order="C")
        if array.dtype.name not in DTYPES:
            raise FileFormatError(f"constant {name!r} is of {array.dtype}; a file holds {', '.join(DTYPES)}")
        _check_finite(name, array)
        table[name] = {"dtype": DTYPES[array.dtype.name], "shape": list(array.shape), "block": None}
        packed = pack_smallest(array)
        if packed is None:
            tensors[f"dense/{name}"] = array
        else:
            tensors |= {f"kept/{name}": packed.kept, f"values/{name}": packed.values}
            table[name]["block"] = list(packed.block)
    return tensors, table


def restore_constants(tensors: Mapping[str, np.ndarray], table: Table, file_bytes: int) -> dict[str, np.ndarray]:
    """The dense constants, or ``FileFormatError`` if the tensors and the table don't fit each other."""
    for name, entry in table.items():
        _check_entry(name, entry)
    check_room(table, file_bytes)
    rest = dict(tensors)
    constants = {name: _restore(name, entry, rest) for name, entry in table.items()}
    if rest:
        raise FileFormatError(f"the tensors {sorted(rest)[:5]} belong to no constant")
    return constants


def check_room(table: Table, file_bytes: int) -> None:
    """Refuse a file of so many bytes that would unpack to far more."""
    unpacked = sum(prod(entry["shape"]) * ITEMSIZES[entry["dtype"]] for entry in table.values())
    if unpacked > max(ROOMY, RATIO * file_bytes):
        raise FileFormatError(f"constants of {unpacked} bytes in a file of {file_bytes}: at most {ROOMY} bytes, or "
                              f"{RATIO} times the file, are unpacked")


def _check_entry(name: str, entry: Any) -> None:
    """Check the form of one entry of the table, before its numbers are used."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "block"}:
        raise FileFormatError(f"constant {name!r} needs 'dtype', 'shape' and 'block', and nothing else")
    dtype, shape, block = entry["dtype"], entry["shape"], entry["block"]
    if not isinstance(dtype, str) or dtype not in ITEMSIZES:
        raise FileFormatError(f"constant {name!r}: 'dtype' is one of {', '.join(ITEMSIZES)}")
    if not _are_sizes(shape):
        raise FileFormatError(f"constant {name!r}: 'shape' is a list of at most {MOST_DIMENSIONS} sizes")
    if block is not None and not (_are_sizes(block) and len(block) == 3):
        raise FileFormatError(f"constant {name!r}: 'block' is null, or a number of rows, of columns and of taps")


def _are_sizes(value: Any) -> bool:
    return (isinstance(value, list) and len(value) <= MOST_DIMENSIONS
            and all(type(size) is int and 0 <= size < LARGEST_SIZE for size in value))


def _restore(name: str, entry: Mapping[str, Any], tensors: dict[str, np.ndarray]) -> np.ndarray:
    """Take the tensors of one constant out of ``tensors`` and make the dense array."""
    try:
        if entry["block"] is None:
            values = array = tensors.pop(f"dense/{name}")
        else:
            kept, values = tensors.pop(f"kept/{name}"), tensors.pop(f"values/{name}")
            rows, columns, taps = entry["block"]
            array = unpack_blocks(PackedWeight(tuple(entry["shape"]), (rows, columns, taps), kept, values))
    except KeyError as missing:
        raise FileFormatError(f"constant {name!r} lacks its tensor {missing}") from missing
    except FileFormatError as error:
        raise FileFormatError(f"constant {name!r}: {error}") from error
    if DTYPES.get(array.dtype.name) != entry["dtype"] or list(array.shape) != entry["shape"]:
        raise FileFormatError(f"constant {name!r} is stored as {array.dtype.name}{list(array.shape)}, and the table "
                              f"says {entry['dtype']}{entry['shape']}")
    _check_finite(name, values)
    return array


def _check_finite(name: str, array: np.ndarray) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise FileFormatError(f"constant {name!r} holds NaN or infinity: did the training diverge?")
