"""``zellige doctor``: what this machine offers, and what is missing."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict, astuple, fields
from typing import Any

from zellige.bench.conditions import processor, versions
from zellige.bench.table import Column, Table
from zellige.cli.arguments import Calibrate, Json
from zellige.cpu.costs import Costs, Family
from zellige.errors import CacheError
from zellige.terminal import show, working, write_json

PACKAGES = (
    "zellige", "numpy", "llvmlite", "safetensors", "torch", "torchvision", "timm", "transformers", "onnx", "onnxscript",
    "onnxruntime", "openvino", "ncnn", "pnnx", "scikit-learn", "typer", "rich",
)  # fmt: skip
READY = "ready"


def doctor(calibrate: Calibrate = False, json: Json = None) -> None:
    """Show the processor, its instruction sets and caches, versions, which rivals can be benchmarked, and the cost model's
    constants. With --calibrate, fit them to this machine first: networks compiled from then on are planned by them.

    Fails where no code can be made for this machine.
    """
    from zellige.cpu.host import host_isa, usable_cpus
    from zellige.cpu.known_costs import known_costs
    from zellige.pack.owned import default_directory

    fit = calibrated() if calibrate else {}
    known = known_costs(host_isa())
    machine, installed, rivals = processor(), versions(PACKAGES), _rivals()
    threads, directory = usable_cpus(), str(default_directory().expanduser())
    costs = {"origin": known.origin, **asdict(known.costs), "fit": fit}
    facts = {"cpu": machine, "threads": threads, "cache": directory, "versions": installed, "rivals": rivals, "costs": costs}
    write_json(json, facts)
    for table in (
        _pairs("machine", {**machine, "threads of an engine": threads, "machine code is kept in": directory}),
        _pairs("versions", {name: installed.get(name, "not installed") for name in ("python", *PACKAGES)}),
        _pairs("rivals", rivals),
        constants(known.costs, fit),
    ):
        show(table)
    print(f"the cost model's constants are {known.origin}")
    print(f"code for this machine is made for {host_isa().name}")


def calibrated() -> dict[str, tuple[int, float]]:
    """Fit the model's constants and keep them: per family, how many calls they were fitted to, and the mean error that is left."""
    from zellige.cpu.calibrate import calibrate
    from zellige.cpu.host import host_isa
    from zellige.cpu.known_costs import keep_costs

    with working("timing generated layers"):
        found = calibrate(host_isa())
    try:
        keep_costs(host_isa(), found.costs)
    except OSError as error:
        advice = "set ZELLIGE_CACHE to a directory that can be written"
        raise CacheError(f"the fitted constants can't be kept: {error}; {advice}") from error
    return found.errors


def constants(costs: Costs, fit: dict[str, tuple[int, float]]) -> Table:
    """A row per family of kernels; the last two columns are empty where nothing was fitted just now."""
    columns = (Column("cost model"), *(Column(field.name, numeric=True) for field in fields(Family)),
               Column("calls", numeric=True), Column("mean error", numeric=True))
    rows = []
    for name in (field.name for field in fields(costs) if field.name != "levels"):
        calls, error = fit.get(name, (0, 0.0))
        rows.append((name.replace("_", " "), *(f"{number:.4g}" for number in astuple(costs.family(name))),
                     *((str(calls), f"{error:.1%}") if calls else ("", ""))))
    levels = costs.levels
    title = (f"cycles = work × computing + weights × bytes ÷ bandwidth + maps × bytes ÷ bandwidth + call; bytes a cycle and core: "
             f"{levels.level2_bytes:g} from L2, {levels.level3_bytes:g} from L3, {levels.memory_bytes:g} from memory")
    return Table(title, columns, tuple(rows))


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
