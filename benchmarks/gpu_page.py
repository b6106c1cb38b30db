"""Fill in the tables of ``docs/gpu.md`` from ``benchmarks/results/gpu-*.json``.

    python benchmarks/gpu_page.py            # rewrite what stands between the markers
    python benchmarks/gpu_page.py --check    # only say whether it is up to date

Every number of a table comes from a file of ``benchmarks/gpu.py``; where there is none the page is left as it is, and the exit
status is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from gpu_join import EARLIER
from pages import replaced, table, times

ROOT = Path(__file__).parent.parent
TOLERANCE = 2e-2
SPARSITIES = (0.5, 0.75, 0.9)
NAMES = {"tw1-128 by 64": "tile-wise, 128 rows, all kept, columns in runs of 64", "tw1-128": "tile-wise, 128 rows, all kept",
         "tw2-128": "tile-wise, 128 rows", "tw2-128 uneven": "tile-wise, 128 rows, uneven", "block-128": "blocks 128 × 128",
         "block-64": "blocks 64 × 64", "block-32": "blocks 32 × 32",
         "tvw-128 by 64": "tile-vector-wise, 128 rows, columns in runs of 64", "tvw-128": "tile-vector-wise, 128 rows"}
CONVOLUTIONS = {"blocks 128 × 64 of a tap": "blocks of 128 rows × 64 channels of a tap",
                "blocks 128 × 64 of a tap, 2:4": "blocks of 128 rows × 64 channels of a tap, 2:4 inside",
                "tw2-128 in eights": "tile-wise, 128 rows, in eights, channels-last", "tw2-128": "tile-wise, 128 rows, planes"}
OURS = ("tiles", "tiles-tokens", "tiles-cuda", "blocks-cuda", "blocks-2:4", "blocks-paired", "tvw")
LARGE = 2048
NOTHING = "Not timed on a GPU yet."
KINDS = {"cublas": "dense", "cusparse": "csr", "tw2-128": "ours", "tvw-128": "ours", "tvw-128 by 64": "ours"}
"""Contestant or mask → what it stands for in the comparison."""


def right(layer: dict[str, Any]) -> dict[str, float]:
    """Contestant → seconds, of those whose answers were right."""
    return {name: seconds for name, seconds in layer.get("seconds", {}).items() if layer["errors"][name] <= TOLERANCE}


def gain(layer: dict[str, Any]) -> float | None:
    """How many times faster than cuBLAS the fastest of Zellige's contestants is; None if none was right."""
    return max((layer["speedup"][name] for name in right(layer) if name in OURS), default=None)


def conditions(facts: dict[str, Any]) -> str:
    found, best, tests = facts["conditions"], facts.get("ceilings", {}), facts.get("correctness", {})
    text = f"{found['gpu']}, CUDA {found['cuda']}, PyTorch {found['torch']}, Triton {found['triton']}; {found['dtype']}"
    if "flop_per_s" in best:
        text += (f". In the same run cuBLAS made {best['flop_per_s'] / 1e12:.0f} TFLOP/s of 8192³, and a copy "
                 f"{best['bytes_per_s'] / 1e12:.2f} TB/s")
    if "cases" in tests:
        text += f". {told(tests, 'products')}"
    if EARLIER in found:
        text += f". Layers marked †, and {', '.join(found[EARLIER])}, are of an earlier run on such a GPU"
    return text + "."


def layers(facts: dict[str, Any]) -> str:
    """A table for each mask: times faster than cuBLAS, and the share of the roofline."""
    parts = []
    for mask, name in NAMES.items():
        own = [layer for layer in facts["layers"] if layer["mask"] == mask and gain(layer)]
        rows = []
        for shape in dict.fromkeys((layer["name"], layer["rows"], layer["columns"]) for layer in own):
            at = {layer["sparsity"]: layer for layer in own if (layer["name"], layer["rows"], layer["columns"]) == shape}
            dense = geometric_mean(layer["seconds"]["cublas"] for layer in at.values())
            cells = [_cell(at.get(level)) for level in SPARSITIES]
            mark = " †" if any("run" in layer for layer in at.values()) else ""
            rows.append([shape[0] + mark, f"{shape[1]} × {shape[2]}", f"{dense * 1e6:.0f}", *cells])
        large = [layer for layer in own if min(layer["rows"], layer["columns"]) >= LARGE]
        means = [[gain(layer) or 0.0 for layer in large if layer["sparsity"] == level] for level in SPARSITIES]
        if any(means):
            cells = [times(geometric_mean(mean)) if mean else "" for mean in means]
            rows.append([f"geometric mean, {LARGE}² and more", "", "", *cells])
        if rows:
            headings = [name, "rows × columns", "cuBLAS, µs", *(f"{level:.0%}" for level in SPARSITIES)]
            parts.append(table(headings, rows, texts=2))
    return "\n\n".join(parts)


def _cell(layer: dict[str, Any] | None) -> str:
    if layer is None:
        return ""
    seconds = min(right(layer)[name] for name in right(layer) if name in OURS)
    return f"{times(gain(layer) or 0)} ({layer['floor_s'] / seconds:.0%})"


def comparison(facts: dict[str, Any]) -> str:
    """Tile-wise or tile-vector-wise, whichever is faster, over dense, over blocks of 32 × 32, over compressed sparse rows; times of
    one run are compared with one another alone."""
    best: dict[tuple[str, float, str], dict[str, float]] = {}
    for layer in facts["layers"]:
        entry = best.setdefault((layer["name"], layer["sparsity"], layer.get("run", "")), {})
        for name, seconds in right(layer).items():
            kind = KINDS.get(name) or KINDS.get(layer["mask"], layer["mask"])
            entry[kind] = min(seconds, entry.get(kind, seconds))
    rows = [[name, f"{sparsity:.0%}", *(times(entry[other] / entry["ours"]) for other in ("dense", "block-32", "csr"))]
            for (name, sparsity, _), entry in sorted(best.items()) if {"ours", "dense", "block-32", "csr"} <= set(entry)]
    return table(["layer", "sparsity", "over cuBLAS", "over blocks 32 × 32", "over cuSPARSE"], rows, texts=2) if rows else ""


def linear(facts: dict[str, Any]) -> str:
    rows = [[NAMES.get(found["mask"], found["mask"]), f"{found['sparsity']:.0%}", found["way"],
             *(f"{found['seconds'][name] * 1e6:.0f}" for name in ("dense", "tile-wise")), times(found["speedup"])]
            for found in facts.get("linear", []) if "speedup" in found]
    return table(["4096 × 4096", "sparsity", "chosen", "dense, µs", "`TileWiseLinear`, µs", ""], rows, texts=3) if rows else ""


def checks(facts: dict[str, Any], section: str) -> dict[str, Any]:
    """What was found of the answers of a section: a section of its own, in earlier files a part."""
    found: dict[str, Any] = facts.get(f"{section} correctness") or facts[section].get("correctness", {})
    return found


def checked(facts: dict[str, Any], section: str, what: str) -> str:
    """On which GPU, and how many awkward shapes were right there."""
    return f"{facts['conditions']['gpu']}; {told(checks(facts, section), what)}."


def told(tests: dict[str, Any], what: str) -> str:
    """How many were checked, how many are wrong, and what was not come to."""
    if "cases" not in tests:
        return f"no {what} checked"
    undone = tests.get("jobs left undone", 0) + len(tests.get("took too long", []))
    return (f"{tests['cases']} {what} of awkward shapes, {len(tests['wrong'])} of them wrong"
            + (f", {undone} more not checked for lack of time" if undone else ""))


def convolution(facts: dict[str, Any], section: str = "convolution") -> str:
    """Times faster than cuDNN, and the share of the roofline, by the masks of a section."""
    found = facts.get(section, {})
    if "layers" not in found:
        return ""
    parts = [checked(facts, section, "convolutions")]
    for mask, name in CONVOLUTIONS.items():
        own = [layer for layer in found["layers"] if layer["mask"] == mask and not right(layer).keys().isdisjoint(OURS)]
        rows = []
        for layer in {layer["name"]: layer for layer in own}.values():
            at = {one["sparsity"]: one for one in own if one["name"] == layer["name"]}
            dense = geometric_mean(one["seconds"]["cudnn"] for one in at.values())
            shape = f"{layer['channels']} → {layer['rows']}, {layer['size']}²"
            rows.append([layer["name"], shape, f"{dense * 1e6:.0f}", *(_cell(at.get(level)) for level in SPARSITIES)])
        if rows:
            headings = [name, "channels → rows, size", "cuDNN, µs", *(f"{level:.0%}" for level in SPARSITIES)]
            parts.append(table(headings, rows, texts=2))
    return "\n\n".join(parts)


def backward(facts: dict[str, Any]) -> str:
    """Forward and backward of a layer, and each part by itself, as times faster than dense."""
    found = facts.get("backward", {})
    if "layers" not in found:
        return ""
    rows = []
    for layer in found["layers"]:
        parts = layer.get("parts", {})
        if parts and all("tiles" in right(part) for part in parts.values()):
            whole = parts["whole"]["seconds"]
            rows.append([layer["name"], f"{layer['sparsity']:.0%}", *(f"{whole[who] * 1e6:.0f}" for who in ("dense", "tiles")),
                         *(times(parts[part]["speedup"]["tiles"]) for part in ("whole", "forward", "dx", "dw"))])
    headings = ["4096 × 4096", "sparsity", "dense, µs", "tiles, µs", "", "forward", "dX", "dW"]
    return f"{checked(facts, 'backward', 'gradients')}\n\n{table(headings, rows, texts=2)}"


def fp8(facts: dict[str, Any]) -> str:
    """Blocks in e4m3: times faster than cuBLAS in e4m3, and from bfloat16 to bfloat16 times faster than cuBLAS in that; how long
    rounding to e4m3 takes. Earlier files have neither that nor layers whose scale is known."""
    found = facts.get("fp8", {})
    if "layers" not in found:
        return ""
    own = [layer for layer in found["layers"] if right(layer)]
    whole = {name: title for name, title in WHOLE_LAYERS.items() if any(name in layer["seconds"] for layer in own)}
    rows = []
    for layer in {layer["name"]: layer for layer in own}.values():
        at = {one["sparsity"]: one for one in own if one["name"] == layer["name"]}
        dense = [geometric_mean(one["seconds"][name] for one in at.values()) for name in ("cublas-bf16", "cublas-e4m3")]
        rows.append([layer["name"], f"{layer['rows']} × {layer['columns']}", *(f"{1e6 * seconds:.0f}" for seconds in dense),
                     *(_faster(at.get(level), "blocks-e4m3", "cublas-e4m3") for level in SPARSITIES),
                     *(_faster(at.get(level), name, "cublas-bf16") for name in whole for level in SPARSITIES)])
    headings = ["blocks 128 × 128 in e4m3", "rows × columns", "cuBLAS bf16, µs", "e4m3, µs",
                *(f"{level:.0%}" for level in SPARSITIES),
                *(f"{title}, {level:.0%}" for title in whole.values() for level in SPARSITIES)]
    tests = checks(facts, "fp8")
    worst = f" The largest relative error was {float(tests['worst']):.1e}." if "worst" in tests else ""
    wrong = tests.get("wrong roundings")
    return "\n\n".join(filter(None, [
        f"{checked(facts, 'fp8', 'products')}{worst} cuBLAS made {found['flop_per_s'] / 1e12:.0f} TFLOP/s of 8192³ in e4m3.",
        table(headings, rows, texts=2), _roundings(found),
        "" if wrong is None else f"{len(wrong)} awkward inputs were rounded wrong."]))


WHOLE_LAYERS = {"layer-e4m3": "layer", "layer-e4m3-known": "layer, scale known"}
"""Contestants that go from bfloat16 to bfloat16."""

ROUNDINGS = {"operators": "PyTorch's operators, µs", "found": "`to_e4m3`, µs", "known": "`to_e4m3_with`, µs"}


def _roundings(found: dict[str, Any]) -> str:
    """What e4m3 of activations takes, and the share of that in which its bytes can be moved."""
    rows = [[f"{found['tokens']} × {one['columns']}",
             *(f"{took * 1e6:.0f} ({one['floor_s'][name] / took:.0%})" for name in ROUNDINGS for took in [one["seconds"][name]])]
            for one in found.get("roundings", [])]
    return table(["bfloat16 to e4m3", *ROUNDINGS.values()], rows, texts=1) if rows else ""


def _faster(layer: dict[str, Any] | None, name: str, other: str) -> str:
    """How many times one contestant is faster than another, and of a product its share of the roofline."""
    seconds = {} if layer is None else right(layer)
    if layer is None or not {name, other} <= set(seconds):
        return ""
    share = f" ({layer['floor_s'] / seconds[name]:.0%})" if name.startswith("blocks") else ""
    return times(seconds[other] / seconds[name]) + share


def networks(facts: dict[str, Any]) -> str:
    """How long a call of each network takes, as all take turns; and how many times faster that is than PyTorch's fastest, and than
    Zellige with the dense network, where that took its turn too."""
    rows = []
    for key, (title, what) in NETWORKS.items():
        seconds: dict[str, float] = facts.get(key, {}).get("seconds", {})
        dense = min((took for name, took in seconds.items() if not name.startswith("ours")), default=0.0)
        own = seconds.get("ours dense")
        for name, took in seconds.items():
            over = [times(dense / took) if dense and name.startswith("ours") else "",
                    times(own / took) if own and name.startswith("ours ") and name != "ours dense" else ""]
            called = DENSE_NETWORKS.get(name, f"`{name.removeprefix('ours ')}`")
            rows.append([f"{title}, {what}", called, f"{1e3 * took:.2f}", *over])
    if not rows:
        return ""
    return (f"{facts['conditions']['gpu']}, PyTorch {facts['conditions']['torch']}; medians of calls in turn\n\n"
            + table(["network", "contestant", "ms", "over PyTorch's fastest here", "over Zellige, dense"], rows, texts=2))


NETWORKS = {"bert-base": ("BERT-base", "64 × 128 words"), "vgg-16": ("VGG-16", "64 images"),
            "resnet-50": ("ResNet-50", "64 images")}  # fmt: skip

DENSE_NETWORKS = {"eager": "PyTorch's operators in a CUDA graph", "max-autotune": "`torch.compile(mode=\"max-autotune\")`",
                  "ours dense": "Zellige, dense"}


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "gpu-conditions": conditions, "gpu-layers": layers, "gpu-comparison": comparison, "gpu-linear": linear,
    "gpu-convolution": convolution, "gpu-block-convolution": partial(convolution, section="block convolution"),
    "gpu-backward": backward, "gpu-fp8": fp8, "gpu-networks": networks}


def main() -> int:
    """Returns the exit status: 0 if the page has all tables (now)."""
    parser = argparse.ArgumentParser(description="Put the benchmark's results into docs/gpu.md.")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "gpu.md")
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 if a table is out of date")
    asked = parser.parse_args()
    files = sorted(asked.results.glob("gpu-*.json"))
    if not files:
        print("there is no gpu-*.json: run benchmarks/gpu.py on a GPU", file=sys.stderr)
        return 1
    facts = [json.loads(file.read_text()) for file in files]
    text = fresh = asked.page.read_text()
    for name, make in TABLES.items():
        fresh = replaced(fresh, f"<!-- {name} -->", f"<!-- /{name} -->", "\n\n".join(filter(None, map(make, facts))) or NOTHING)
    if asked.check:
        return int(fresh != text)
    asked.page.write_text(fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main())
