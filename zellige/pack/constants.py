"""A graph's constants as the tensors of a file, and the table that says how each is stored.

A constant is stored as ``dense/NAME``, or as ``kept/NAME`` and ``values/NAME`` (``blocks.py``), whichever takes fewer
bytes. The table has one entry per constant, in the graph's order: ``dtype``, ``shape``, and ``block``, which is
``None`` or [rows, columns, taps].
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import Any

import numpy as np

from zellige.errors import FileFormatError
from zellige.graph.ir import DTYPES, StoredConstants, TensorType
from zellige.pack.blocks import PackedWeight, check_blocks, pack_smallest, unpack_blocks

Table = dict[str, dict[str, Any]]

ITEMSIZES = {name: np.dtype(numpy_name).itemsize for numpy_name, name in DTYPES.items()}

MOST_DIMENSIONS = 8
LARGEST_SIZE = 1 << 40

ROOMY = 1 << 30
RATIO = 256
"""Constants that unpack to more than ``ROOMY`` bytes and more than ``RATIO`` times the file's are refused: that is no
network, but a trap for the reader's memory."""


def store_constants(constants: Mapping[str, np.ndarray]) -> tuple[Mapping[str, np.ndarray], Table]:
    """The tensors that hold ``constants``, and the table; no NaN, no infinity, no unknown element types."""
    if isinstance(constants, PackedConstants):
        return constants.tensors, constants.table
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


def restore_constants(tensors: Mapping[str, np.ndarray], table: Table, file_bytes: int) -> PackedConstants:
    """The constants, or ``FileFormatError`` if the tensors and the table don't fit each other."""
    for name, entry in table.items():
        _check_entry(name, entry)
    check_room(table, file_bytes)
    rest = {*tensors}
    for name, entry in table.items():
        _check_constant(name, entry, tensors, rest)
    if rest:
        raise FileFormatError(f"the tensors {sorted(rest)[:5]} belong to no constant")
    return PackedConstants(tensors, table)


class PackedConstants(StoredConstants):
    """Constants as the tensors of a file; a dense one is made anew whenever it is asked for.

    Where the tensors lie in a file, that may raise ``FileFormatError``: it was altered since.
    """

    def __init__(self, tensors: Mapping[str, np.ndarray], table: Table) -> None:
        self.tensors, self.table = tensors, table
        self.types = {name: TensorType(tuple(entry["shape"]), entry["dtype"]) for name, entry in table.items()}

    def __getitem__(self, name: str) -> np.ndarray:
        block, shape = self.table[name]["block"], self.types[name].shape
        if block is None:
            return self.tensors[f"dense/{name}"]
        rows, columns, taps = block
        kept, values = self.tensors[f"kept/{name}"], self.tensors[f"values/{name}"]
        return unpack_blocks(PackedWeight(shape, (rows, columns, taps), kept, values))

    def __contains__(self, name: object) -> bool:
        return name in self.table

    def __iter__(self) -> Iterator[str]:
        return iter(self.table)

    def __len__(self) -> int:
        return len(self.table)

    def ordered(self, names: Iterable[str]) -> PackedConstants:
        return PackedConstants(self.tensors, {name: self.table[name] for name in names})


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


def _check_constant(name: str, entry: Mapping[str, Any], tensors: Mapping[str, np.ndarray], rest: set[str]) -> None:
    """Check the tensors of one constant, and take their names out of ``rest``."""
    parts = [f"dense/{name}"] if entry["block"] is None else [f"kept/{name}", f"values/{name}"]
    for part in parts:
        if part not in rest:
            raise FileFormatError(f"constant {name!r} lacks its tensor {part!r}")
        rest.remove(part)
    arrays = [tensors[part] for part in parts]
    values, shape = arrays[-1], list(arrays[-1].shape)
    if entry["block"] is not None:
        rows, columns, taps = entry["block"]
        shape = entry["shape"]
        try:
            check_blocks(PackedWeight(tuple(shape), (rows, columns, taps), *arrays))
        except FileFormatError as error:
            raise FileFormatError(f"constant {name!r}: {error}") from error
    if DTYPES.get(values.dtype.name) != entry["dtype"] or shape != entry["shape"]:
        raise FileFormatError(f"constant {name!r} is stored as {values.dtype.name}{shape}, and the table "
                              f"says {entry['dtype']}{entry['shape']}")
    if values.dtype.kind == "b" and values.view(np.uint8).max(initial=0) > 1:
        raise FileFormatError(f"constant {name!r} is of booleans and holds other bytes than 0 and 1")
    _check_finite(name, values)


def _check_finite(name: str, array: np.ndarray) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise FileFormatError(f"constant {name!r} holds NaN or infinity: did the training diverge?")
