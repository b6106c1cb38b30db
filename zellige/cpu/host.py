"""What this machine is: its CPU as LLVM names it, the best instruction set it runs, the CPUs that may be used, the caches."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import llvmlite.binding as llvm

from zellige.cpu.isa import ISAS, Isa
from zellige.cpu.quota import granted_cpus
from zellige.errors import CompileError

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


@dataclass(frozen=True)
class Caches:
    """Sizes in bytes: levels 1 (data) and 2 as one core sees them, 3 as all that share it do (0: there is none)."""

    level1: int
    level2: int
    level3: int


MODEST_CACHES = Caches(level1=32 << 10, level2=512 << 10, level3=0)


@cache
def cpu_name() -> str:
    """LLVM's name of this CPU, such as ``znver5``."""
    return llvm.get_host_cpu_name()


@cache
def cpu_features() -> dict[str, bool]:
    """LLVM's features of this CPU and whether it has them."""
    try:
        return dict(sorted(llvm.get_host_cpu_features().items()))
    except RuntimeError as error:
        raise CompileError(f"LLVM can't tell the features of this CPU ({cpu_name()}): {error}") from error


@cache
def architecture() -> str:
    """The first part of LLVM's triple: ``x86_64``, ``aarch64``."""
    return llvm.get_process_triple().split("-")[0]


def missing_features(isa: Isa) -> tuple[str, ...]:
    """What this machine lacks to run an instruction set's code; empty if it can."""
    if not sys.platform.startswith("linux"):
        return ("linux",)
    if isa.triple.split("-")[0] != architecture():
        return (isa.triple.split("-")[0],)
    return tuple(feature for feature in isa.needs if not cpu_features().get(feature, False))


def runs_here(isa: Isa) -> bool:
    return not missing_features(isa)


@cache
def host_isa() -> Isa:
    """The best instruction set that this machine runs. ``CompileError`` if it runs none."""
    for isa in ISAS.values():  # the table has the widest of each architecture first
        if runs_here(isa):
            return isa
    wanted = "; ".join(f"{isa.name} lacks {', '.join(missing_features(isa))}" for isa in ISAS.values())
    raise CompileError(f"{_this_machine()} runs none of the instruction sets that code can be made for: {wanted}. Make an "
                       f"object file for another machine (zl.export with target='cpu:NAME'), or run on a newer CPU")


def require(isa: Isa) -> None:
    """Raise ``CompileError`` unless this machine runs the instruction set."""
    missing = missing_features(isa)
    if not missing:
        return
    able = [other.name for other in ISAS.values() if runs_here(other)]
    advice = f"use target='cpu' or 'cpu:{able[0]}' on this machine" if able else "run on another machine"
    raise CompileError(f"code for {isa.name} can't run here: {_this_machine()} lacks {', '.join(missing)}. It can be "
                       f"inspected here, and exported to an object file (zl.export, zellige compile -o FILE.o); to run, {advice}")


def _this_machine() -> str:
    return f"this machine ({cpu_name()}, {architecture()}, {sys.platform})"


def usable_cpus() -> int:
    """The CPUs that this process may keep busy: its affinity, or its control groups' quota (whole CPUs) if that is less."""
    affinity = len(os.sched_getaffinity(0))
    granted = granted_cpus()
    return affinity if granted is None else max(1, min(affinity, int(granted)))


def caches(directory: Path = CACHES) -> Caches:
    """The first CPU's cache sizes; ``MODEST_CACHES`` where the kernel does not tell them, as on some virtual machines."""
    sizes: dict[str, int] = {}
    for index in sorted(directory.glob("index*")):
        level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            sizes[f"level{level}"] = int(size.removesuffix("K")) << 10
    if not {"level1", "level2"} <= sizes.keys():
        return MODEST_CACHES
    return Caches(sizes["level1"], sizes["level2"], sizes.get("level3", 0))
