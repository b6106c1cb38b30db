"""Estimate three networks on arrays of AI Engines, dense and without half of their blocks. Nothing here runs on a chip.

    python benchmarks/aie2.py paper          # 7 overlays × 3 networks under the paper's assumptions
    python benchmarks/aie2.py ve2802         # 16 cores at 1.25 GHz, beside what AMD's DPU is published to take
    python benchmarks/aie2.py sensitivity    # ResNet-50 there, with other clocks, external memories and kernels
    python benchmarks/aie2.py staying        # ResNet-50 there and on the NPU1, with values that stay in memory tiles and without

Results go to ``benchmarks/results/aie2-*.json``, cell by cell; cells that are there already are kept. Times are of the model that
``docs/aie2.md`` describes, so they are the same on every machine. Weights are random, and blocks of 8×8 go by L1 in every
convolution but the first; VGG-16 is counted without its fully connected layers, as in the paper.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from result_file import RESULTS, conditions, write_result
from torch import nn

import zellige as zl
from zellige.aie2.device import device_named
from zellige.aie2.estimate.network import NetworkTime, network_time
from zellige.aie2.lowering.residency_search import choose_residency, nothing_stays
from zellige.aie2.overlay import Overlay, overlay
from zellige.api import quantized_graph
from zellige.graph.quantized import QuantizedGraph
from zellige.models import resolve

NETWORKS = ("resnet50", "inception_v3", "vgg16")
SIDES = range(2, 9)
SPARSITY = 0.5
CLOCKS = (1.0e9, 1.25e9)  # Hz
MEMORIES = (12.5e9, 25.6e9, 51.2e9, 102.4e9)  # bytes a second
PRODUCTS = (128, 256, 512)  # of a core in a cycle


@dataclass(frozen=True)
class Cell:
    """One estimate to make: which network, with how many of its blocks gone, on what."""

    name: str
    network: str
    sparsity: float
    on: Overlay
    stays: bool = True


def paper() -> Iterator[Cell]:
    for network in NETWORKS:
        for side in SIDES:
            for sparsity in (0.0, SPARSITY):
                yield Cell(f"{network} {side}x{side} {sparsity:g}", network, sparsity, overlay(device_named("paper"), side, side))


def ve2802() -> Iterator[Cell]:
    for network in NETWORKS:
        for sparsity in (0.0, SPARSITY):
            yield Cell(f"{network} {sparsity:g}", network, sparsity, overlay(device_named("ve2802"), 4, 4))


def sensitivity() -> Iterator[Cell]:
    usual = overlay(device_named("ve2802"), 4, 4)
    changes: dict[str, list[dict[str, Any]]] = {
        "clock": [{"clock": clock} for clock in CLOCKS], "ddr_bytes": [{"ddr_bytes": memory} for memory in MEMORIES],
        "macs": [{"macs": products} for products in PRODUCTS],
    }  # fmt: skip
    for what, settings in changes.items():
        for setting in settings:
            for sparsity in (0.0, SPARSITY):
                yield Cell(f"{what} {setting[what]:g} {sparsity:g}", "resnet50", sparsity,
                           replace(usual, device=replace(usual.device, **setting)))


def staying() -> Iterator[Cell]:
    for device in ("ve2802", "npu1"):
        for stays in (False, True):
            for sparsity in (0.0, SPARSITY):
                name = f"{device} {'stays' if stays else 'host'} {sparsity:g}"
                yield Cell(name, "resnet50", sparsity, overlay(device_named(device), 4, 4), stays)


TABLES = {"paper": paper, "ve2802": ve2802, "sensitivity": sensitivity, "staying": staying}


@cache
def network(name: str, sparsity: float) -> QuantizedGraph:
    """A network in int8, with powers of two as scales, calibrated on its example input."""
    named = resolve(f"torchvision:{name}")
    model: nn.Module = nn.Sequential(named.model.features).eval() if name == "vgg16" else named.model
    inputs = tuple(named.example_inputs)
    if sparsity:
        linear = [part for part, module in model.named_modules() if isinstance(module, nn.Linear)]
        zl.prune(model, "block:8x8", sparsity, inputs, ignore=linear)
    return quantized_graph(model, inputs)


@cache
def estimated(name: str, sparsity: float, on: Overlay, stays: bool) -> dict[str, Any]:
    """The facts of a cell; some cells of a table are the same."""
    choice = choose_residency if stays else nothing_stays
    return facts(network_time(network(name, sparsity), on, not sparsity, choice))


def facts(found: NetworkTime) -> dict[str, Any]:
    """Milliseconds, those by what bounds them, and every phase."""
    bounds: Counter[str] = Counter()
    for phase in found.phases:
        bounds[phase.bound] += found.ms(phase)  # type: ignore[assignment]
    return {"ms": found.total_ms, "bounds": dict(bounds.most_common()),
            "phases": [{"name": phase.name, "op": found.operators[phase.name], "ms": found.ms(phase), "bound": phase.bound}
                       for phase in found.phases]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--only", default="", help="cells whose name starts so")
    asked = parser.parse_args()
    path = RESULTS / f"aie2-{asked.table}.json"
    cells: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["cells"] if path.exists() else {}
    for cell in TABLES[asked.table]():
        if cell.name in cells or not cell.name.startswith(asked.only):
            continue
        began = time.perf_counter()
        cells[cell.name] = estimated(cell.network, cell.sparsity, cell.on, cell.stays)
        print(f"{cell.name}: {cells[cell.name]['ms']:.3f} ms, estimated in {time.perf_counter() - began:.0f} s", flush=True)
        write_result(path, {**conditions(1, 1), "cells": cells})
    return 0


if __name__ == "__main__":
    sys.exit(main())
