"""The tables of ``docs/performance.md``: each a function from the directory of results to Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pages import bold, milliseconds, table, times
from readme_table import RIVALS, read_results
from series import SERIES, TABLE_LEVELS, Series

HALF = "cpu-resnet50-block8x8-50-batch1.json"
EVEN = {"channels-100": "channels-96", "maps-7": "maps-8"}
"""Which network stands beside one of an odd size; the other conditions stand beside ResNet-50 at batch 1 on all threads."""
PROFILED = {"resnet50": "ResNet-50", "vgg16": "VGG-16", "inception-v3": "Inception V3"}
WORTH_A_LINE = 0.005  # of a network's time


def read(results: Path, name: str) -> Any:
    return json.loads((results / name).read_text())


def ours(result: dict[str, Any]) -> str:
    return milliseconds(result["engines"]["zellige"]["median_ms"])


def fastest(result: dict[str, Any]) -> str:
    name = result["fastest_dense"]
    return f"{RIVALS[name]}, {milliseconds(result['engines'][name]['median_ms'])}"


def networks(results: Path) -> str:
    """Speedups over the fastest dense engine, a line per network, each with our time in ms."""
    found = {(result["model"], result["sparsity"]): result for result in read_results(results)}
    lines = []
    for model in dict.fromkeys(series.model for series in SERIES if series.group != "conditions"):
        mine = {level: found[model, level] for level in TABLE_LEVELS if (model, level) in found}
        if mine:
            cells = (f"{bold(times(one['speedup_over_fastest']))} ({ours(one)})" if (one := mine.get(level)) else ""
                     for level in TABLE_LEVELS)  # fmt: skip
            lines.append([model.partition(":")[2], fastest(next(iter(mine.values()))), *cells])
    if not lines:
        raise FileNotFoundError(2, "no results", str(results / "cpu-*.json"))
    return table(["network", "fastest dense engine, ms", "dense", "50 %", "75 %", "90 %"], lines)


def other_processors(results: Path) -> str:
    """The same, a table for each directory of results that were measured on another processor."""
    parts = []
    for directory in sorted({file.parent for file in results.glob("*/cpu-*.json")}):
        one = read_results(directory)[0]
        cpu, measured = one["conditions"]["cpu"], one["conditions"]
        parts += [f"{cpu['name']} ({cpu['llvm_name']}), {cpu['cpus']} CPUs, {one['threads']} threads, "
                  f"{measured['rounds']} rounds, {measured['date'][:10]}:", networks(directory)]
    if not parts:
        raise FileNotFoundError(2, "no results", str(results / "*" / "cpu-*.json"))
    return "\n\n".join(parts)


def conditions(results: Path) -> str:
    """Ratios to the fastest dense engine under other conditions, beside the ratio without them."""
    lines = []
    for series in SERIES:
        if series.group != "conditions" or series.network in EVEN.values():
            continue
        file = series.file_name(0.5)
        beside = file.replace(series.network, EVEN[series.network]) if series.network in EVEN else HALF
        one, other = read(results, file), read(results, beside)
        ratio, without = one["speedup_over_fastest"], other["speedup_over_fastest"]
        lines.append([described(series), ours(one), fastest(one), times(ratio), times(without), bold(f"{ratio / without:.2f}")])
    return table(["condition", "Zellige, ms", "fastest dense engine, ms", "faster by", "without it", "share"], lines)


def described(series: Series) -> str:
    """A condition in words."""
    if series.network in EVEN:
        (what, number), (_, even) = (name.split("-") for name in (series.network, EVEN[series.network]))
        return f"{number} {what} beside {even}" if what == "channels" else f"{what} of {number} × {number} beside {even} × {even}"
    changed = [f"batch {series.batch}"] * (series.batch > 1) + ["one thread"] * (series.threads == 1)
    return "ResNet-50, " + ", ".join([*changed, *[f"{series.size} × {series.size} pixels"] * bool(series.size)])


def narrow_blocks(results: Path) -> str:
    """What blocks of fewer columns cost."""
    lines = [[row["pattern"].partition(":")[2].replace("x", "×"), f"{row['sparsity']:.0%}", milliseconds(row["median_ms"]),
              f"{row['square_over_own']:.3f}"] for row in read(results, "narrow-blocks.json")["rows"]]  # fmt: skip
    return table(["blocks", "sparsity", "ms", "speed beside 8×8"], lines)


def thread_scaling(results: Path) -> str:
    """What the second thread brings."""
    facts = read(results, "thread-scaling.json")
    lines = [[f"{row['sparsity']:.0%}", *(milliseconds(row[key]) for key in ("one_thread_ms", "median_ms")),
              bold(times(row["speedup"]))] for row in facts["rows"]]  # fmt: skip
    return table(["sparsity", "one thread, ms", f"{facts['conditions']['threads']} threads, ms", "faster by"], lines)


def layer_time(results: Path) -> str:
    """The straight lines of time against kept blocks."""
    lines = []
    for layer in read(results, "layer-time.json")["layers"]:
        fixed, blocks = layer["fixed_microseconds"], layer["microseconds_of_all_blocks"]
        share = f"{fixed / (fixed + blocks):.0%}"
        lines.append([layer["layer"], f"{fixed:.1f}", f"{blocks:.1f}", share, f"{layer['r_squared']:.4f}"])
    return table(["layer", "fixed, µs", "all blocks, µs", "fixed part", "r²"], lines)


def matrix_vector(results: Path) -> str:
    """How fast a classifier reads its kept weights."""
    facts = read(results, "matrix-vector.json")
    lines = [[layer["layer"], f"{layer['sparsity']:.0%}", f"{layer['weight_bytes'] / 1e6:.1f}", f"{layer['microseconds']:.0f}",
              f"{layer['gigabytes_per_second']:.1f}", bold(f"{layer['of_copy']:.0%}"), f"{layer['of_read']:.0%}"]
             for layer in facts["layers"]]  # fmt: skip
    headings = ["layer of VGG-16", "sparsity", "kept, MB", "µs", "GB/s", "of a copy's", "of reading's"]
    copied, reading = facts["copy_gigabytes_per_second"], facts["read_gigabytes_per_second"]
    return f"{table(headings, lines)}\n\nIn the same rounds a copy moved {copied:.1f} GB/s, reading alone {reading:.1f} GB/s."


def paths(results: Path) -> str:
    """Where the time of the three networks goes, by path, beside the floor that peak and bandwidths set."""
    lines, errors = [], []
    for file, network in PROFILED.items():
        profile = read(results, f"profile-{file}-block8x8-50-batch1.json")["profile"]
        errors.append(f"{network} {profile['mean_error']:.1%}, {profile['weighted_error']:.1%} weighted by time")
        for path in dict.fromkeys(row["path"] for row in profile["rows"]):
            mine = [row for row in profile["rows"] if row["path"] == path and row["microseconds"] > 0]
            if sum(row["microseconds"] for row in mine) > WORTH_A_LINE * profile["total_microseconds"]:
                lines.append([network, path or "copies, margins", *_path(mine, profile)])
    headings = ["network at 50 %", "path", "layers", "µs", "of the time", "GFLOP/s", "of peak", "GB/s", "floor ÷ time"]
    return f"{table(headings, lines, 2)}\n\nMean error of the cost model over the layers: {'; '.join(errors)}."


def _path(rows: list[dict[str, Any]], profile: dict[str, Any]) -> list[str]:
    """Layers, time, speed and bandwidth of the layers that run on one path."""
    span, floor, weights, maps = (sum(row[key] for row in rows)
                                  for key in ("microseconds", "floor_microseconds", "weight_bytes", "map_bytes"))  # fmt: skip
    gflops = sum(row["gflops"] * row["microseconds"] for row in rows) / span
    multiplied = [f"{gflops:.0f}", f"{gflops / profile['peak_gflops']:.0%}"] if gflops else ["", ""]
    layers, share = str(sum(bool(row["op"]) for row in rows) or ""), f"{span / profile['total_microseconds']:.0%}"
    return [layers, f"{span:.0f}", share, *multiplied, f"{(weights + maps) / span / 1e3:.0f}", f"{floor / span:.0%}"]


def avx2(results: Path) -> str:
    """All engines that can be held to AVX2."""
    found = read(results, "avx2-resnet50-block8x8-50-batch1.json")
    names = RIVALS | {"zellige": "**Zellige**", "zellige-dense": "Zellige, dense"}
    lines = [[names[name], milliseconds(one["median_ms"]), times(found["speedup"][name]) if name in found["speedup"] else ""]
             for name, one in sorted(found["engines"].items(), key=lambda pair: pair[1]["median_ms"])]  # fmt: skip
    return table(["ResNet-50 at 50 %, AVX2", "ms", "Zellige is faster by"], lines)


TABLES: dict[str, Callable[[Path], str]] = {
    "networks": networks,
    "other-processors": other_processors,
    "conditions": conditions,
    "narrow-blocks": narrow_blocks,
    "thread-scaling": thread_scaling,
    "layer-time": layer_time,
    "matrix-vector": matrix_vector,
    "paths": paths,
    "avx2": avx2,
}
"""By the name in the markers between which a table stands."""
