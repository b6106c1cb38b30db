"""``zellige doctor``: what this machine offers, and what is missing."""

from __future__ import annotations

import importlib.util
from typing import Any

from zellige.bench.conditions import processor, versions
from zellige.bench.table import Column, Table
from zellige.cli.arguments import Json
from zellige.terminal import show, write_json

PACKAGES = (
    "zellige", "numpy", "llvmlite", "safetensors", "torch", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime",
    "openvino", "ncnn", "pnnx", "scikit-learn", "typer", "rich",
)  # fmt: skip
READY = "ready"


def doctor(json: Json = None) -> None:
    """Show the processor, its instruction sets and caches, versions, and which rivals can be benchmarked.

    Fails where no code can be made for this machine.
    """
    from zellige.cpu.cache import default_directory
    from zellige.cpu.host import host_isa, usable_cpus

    machine, installed, rivals = processor(), versions(PACKAGES), _rivals()
    threads, directory = usable_cpus(), str(default_directory().expanduser())
    facts = {"cpu": machine, "threads": threads, "cache": directory, "versions": installed, "rivals": rivals}
    write_json(json, facts)
    for table in (
        _pairs("machine", {**machine, "threads of an engine": threads, "machine code is kept in": directory}),
        _pairs("versions", {name: installed.get(name, "not installed") for name in ("python", *PACKAGES)}),
        _pairs("rivals", rivals),
    ):
        show(table)
    print(f"code for this machine is made for {host_isa().name}")


def _rivals() -> dict[str, str]:
    """Of every rival, whether it is ready, or what it lacks."""
    if importlib.util.find_spec("torch") is None:
        return {"all": "PyTorch is not installed: pip install 'zellige[torch]'"}
    from zellige.bench.rivals import RIVALS, why_unavailable

    return {name: why_unavailable(name) or READY for name in RIVALS}


def _pairs(title: str, pairs: dict[str, Any]) -> Table:
    return Table(title, (Column("what"), Column("found")), tuple((name, _text(value)) for name, value in pairs.items()))


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {size}" for name, size in value.items())
    return ", ".join(value) if isinstance(value, list) else str(value)
