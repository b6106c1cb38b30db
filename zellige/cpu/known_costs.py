"""Which constants the cost model has for an instruction set on this machine: those that were fitted to it, or the defaults.

What ``calibrate.py`` fits is kept as JSON beside the machine code, in the directory that only its owner can write. The file's name
and its content say for which CPU, compiler and version of Zellige it holds; any other is never read. A file that is not what this
module writes, to the letter of its keys, is refused with a warning.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from zellige.cpu import host
from zellige.cpu.cache import MachineCodeCache, entry_key
from zellige.cpu.costs import Costs, Family, Levels
from zellige.cpu.isa import Isa
from zellige.errors import ZelligeError
from zellige.pack.strict_json import read_json

FORMAT = "zellige costs 2"
LARGEST = 1e12  # of any constant


@dataclass(frozen=True)
class KnownCosts:
    """Constants, and where they are from: a sentence for people."""

    costs: Costs
    origin: str


def known_costs(isa: Isa) -> KnownCosts:
    """The fitted constants if this machine runs the instruction set and has been calibrated for it, else the defaults with this
    machine's caches."""
    if not host.runs_here(isa):
        return KnownCosts(Costs(), "the defaults: this machine can't run the code")
    stored, key = MachineCodeCache(), file_key(isa)
    try:
        content = stored.read(file_name(key))
    except OSError:
        content = None
    if content is not None:
        path = stored.directory / file_name(key)
        try:
            return KnownCosts(parse_costs(content, key), f"fitted to this machine: {path}")
        except ZelligeError as error:
            _warn(path, str(error))
    sizes = host.caches()
    levels = replace(Levels(), level2=sizes.level2, level3=sizes.level3)
    return KnownCosts(Costs(levels=levels), "the defaults; `zellige doctor --calibrate` fits them to this machine")


def keep_costs(isa: Isa, costs: Costs) -> Path:
    """Write constants where ``known_costs`` finds them, and say where that is. ``CacheError`` or ``OSError`` if that can't be."""
    stored, key = MachineCodeCache(), file_key(isa)
    value = {"format": FORMAT, "key": key, "cpu": host.cpu_name(), "isa": isa.name, "costs": asdict(costs)}
    stored.write(file_name(key), (json.dumps(value, indent=1) + "\n").encode())
    return stored.directory / file_name(key)


def file_key(isa: Isa) -> str:
    """A digest of what constants hold for: the CPU, its features, the compiler, this version of Zellige."""
    return entry_key(FORMAT, isa)


def file_name(key: str) -> str:
    return f"costs-{key[:16]}.json"


def parse_costs(content: bytes, key: str) -> Costs:
    """The constants in a file's content. ``ZelligeError`` if anything is missing, left over, of another kind or out of range."""
    value = read_json(content, "the file of fitted costs")
    if not isinstance(value, dict) or set(value) != {"format", "key", "cpu", "isa", "costs"}:
        raise ZelligeError("expected an object with format, key, cpu, isa and costs")
    if (value["format"], value["key"]) != (FORMAT, key):
        raise ZelligeError(f"expected {FORMAT!r} for this CPU and compiler, got {value['format']!r} for another")
    parts: dict[str, Any] = {}
    kinds: dict[str, Any] = {field.name: Levels if field.name == "levels" else Family for field in fields(Costs)}
    for name, numbers in _exactly(value["costs"], kinds, "costs").items():
        kind = kinds[name]
        found = _exactly(numbers, {field.name: field for field in fields(kind)}, name)
        parts[name] = kind(**{key: _number(number, f"{name}.{key}") for key, number in found.items()})
    levels = parts["levels"]
    if min(levels.level2_bytes, levels.level3_bytes, levels.memory_bytes) <= 0:
        raise ZelligeError("expected bandwidths above 0")
    return Costs(**parts)


def _exactly(value: Any, keys: dict[str, Any], what: str) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != set(keys):
        raise ZelligeError(f"expected {what} to have exactly {', '.join(keys)}")
    return value


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LARGEST:
        raise ZelligeError(f"expected {what} to be a number from 0 to {LARGEST:g}, got {value!r}")
    return value


@cache
def _warn(path: Path, fault: str) -> None:
    """Once for each fault."""
    warnings.warn(f"the cost model has its defaults, since {path} can't be used: {fault}. Run `zellige doctor --calibrate`, or "
                  f"remove the file", RuntimeWarning, stacklevel=3)
