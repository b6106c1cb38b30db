"""Under which conditions a number was measured: the processor, its caches, instruction sets and versions.

Read from Linux's own files where they exist; what can't be read is left out, never guessed.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
PACKAGES = ("zellige", "numpy", "llvmlite", "safetensors", "torch", "torchvision", "timm")
EXTENSIONS = (
    "sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16",
    "amx_tile", "asimd", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip


def usable_threads() -> int:
    """CPUs that this process may run on: its affinity, and no more than its control group's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, _quota() or allowed))


def _quota() -> int | None:
    """Whole CPUs that the control group grants (version 2, rounded up), where it sets a limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else -(-int(quota) // int(period))


def processor() -> dict[str, object]:
    """Name, architecture, CPUs, caches and instruction-set extensions of this machine."""
    fields = _cpu_fields()
    flags = set(str(fields.get("flags", fields.get("Features", ""))).split())
    return {
        "name": fields.get("model name", platform.processor() or platform.machine()),
        "family": fields.get("cpu family", ""),
        "architecture": platform.machine(),
        "cpus": os.cpu_count() or 1,
        "extensions": [name for name in EXTENSIONS if name in flags],
        "caches": caches(),
    }


def _cpu_fields() -> dict[str, str]:
    """The first processor's block of /proc/cpuinfo."""
    try:
        first = CPU_INFO.read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def caches() -> dict[str, str]:
    """Sizes of the caches that the first core sees, as Linux states them: ``{"L1 data": "48K", ...}``."""
    sizes = {}
    for index in sorted(CACHES.glob("index*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        sizes[f"L{level}" if kind == "Unified" else f"L{level} {kind.lower()}"] = size
    return sizes


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Versions of Python and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
