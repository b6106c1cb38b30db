"""Under which conditions a number was measured: the processor, its caches, instruction sets and versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import asdict
from pathlib import Path

from zellige.cpu import host

CPU_INFO = Path("/proc/cpuinfo")
PACKAGES = ("zellige", "numpy", "llvmlite", "safetensors", "torch", "triton", "torchvision", "timm")
EXTENSIONS = (
    "sse4.2", "avx", "f16c", "fma", "avx2", "avxvnni", "avx512f", "avx512bw", "avx512vl", "avx512vnni", "avx512bf16",
    "amx-tile", "neon", "dotprod", "i8mm", "bf16", "sve",
)  # fmt: skip
"""Those that matter for neural networks, by LLVM's names, the widest of each family last."""


def processor() -> dict[str, object]:
    """Name, CPUs, caches in bytes and instruction-set extensions of this machine.

    ``isa`` is the best instruction set that code is made for here, ``None`` if there is none.
    """
    features = host.cpu_features()
    able = [isa.name for isa in host.ISAS.values() if host.runs_here(isa)]
    return {
        "name": _name(),
        "llvm_name": host.cpu_name(),
        "architecture": platform.machine(),
        "cpus": os.cpu_count() or 1,
        "isa": able[0] if able else None,
        "extensions": [name for name in EXTENSIONS if features.get(name)],
        "cache_bytes": asdict(host.caches()),
    }


def _name() -> str:
    """What the processor calls itself; virtual machines often leave the model out, so the family is added."""
    try:
        first = CPU_INFO.read_text().split("\n\n")[0]
    except OSError:
        return platform.processor() or platform.machine()
    pairs = (line.partition(":") for line in first.splitlines())
    fields = {name.strip(): value.strip() for name, _, value in pairs}
    name = fields.get("model name", platform.machine())
    return f"{name}, family {fields['cpu family']}, model {fields['model']}" if "cpu family" in fields else name


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Versions of Python and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
