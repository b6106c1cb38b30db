"""Draw the figures of ``docs/performance.md`` from the files in ``benchmarks/results``, as SVG files in ``docs/figures``.

    python benchmarks/plots.py

Nothing is measured here; the same results give the same files. A figure whose results are missing is named and left as it is;
the exit status is then 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes

from zellige.figures import COLOURS, save_figure

ROOT = Path(__file__).parent.parent
PATHS = {"sparse": "band kernel", "dense": "band kernel, dense", "winograd": "Winograd F(4×4, 3×3)",
         "matrix-vector": "matrix-vector", "small winograd": "Winograd F(2×2, 3×3)"}
NETWORKS = {"resnet50": "ResNet-50", "vgg16": "VGG-16", "inception_v3": "Inception V3"}
CEILING = 4  # F(4×4, 3×3) multiplies at 36 points in place of 144


def roofline(results: Path, axes: Axes) -> None:
    """GFLOP/s against FLOP per byte of ResNet-50's layers at 50 %, below the measured peak and bandwidths."""
    profile = json.loads((results / "profile-resnet50-block8x8-50-batch1.json").read_text())["profile"]
    rows = [row for row in profile["rows"] if row["gflops"] > 0]
    peak = profile["peak_gflops"]
    reach = (0.3, 200.0)
    levels = (("level2", "L2", "--"), ("level3", "L3", "-."), ("memory", "memory", ":"))
    for key, label, dashes in levels:
        speed = profile["bandwidth"][key]
        ridge = peak / speed
        axes.plot([reach[0], ridge], [speed * reach[0], peak], dashes, color="#777777", linewidth=1,
                  label=f"{label}, {speed:.0f} GB/s")  # fmt: skip
    axes.plot([peak / profile["bandwidth"]["level2"], reach[1]], [peak, peak], color="#333333", linewidth=1.2,
              label=f"multiply-adds, {peak:.0f} GFLOP/s")  # fmt: skip
    axes.axhline(CEILING * peak, color="#bbbbbb", linewidth=1, linestyle=(0, (1, 1)),
                 label=f"{CEILING} × as much: Winograd's limit")  # fmt: skip
    for colour, (path, label) in zip(COLOURS, PATHS.items(), strict=False):
        mine = [row for row in rows if row["path"] == path]
        if mine:
            intensity = [row["gflops"] * row["microseconds"] * 1e3 / (row["weight_bytes"] + row["map_bytes"]) for row in mine]
            axes.scatter(intensity, [row["gflops"] for row in mine], s=18, color=colour, edgecolors="white", linewidths=0.4,
                         label=label, zorder=3)  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=reach, ylim=(10, 3000), xlabel="FLOP per byte (kept blocks only)", ylabel="GFLOP/s",
             title="ResNet-50 at 50 %, layer by layer")  # fmt: skip
    axes.legend(loc="lower right")


def speedup(results: Path, axes: Axes) -> None:
    """Speedup over the fastest dense engine against sparsity."""
    curves = {key: json.loads((results / f"sparsity-{key.replace('_', '-')}-block8x8-batch1.json").read_text()) for key in NETWORKS}
    for colour, (key, curve) in zip(COLOURS, curves.items(), strict=False):
        points = [point for point in curve["points"] if point["speedup_over_fastest"] is not None]
        at = [100 * point["sparsity"] for point in points]
        axes.plot(at, [point["speedup_over_fastest"] for point in points], "o-", color=colour, markersize=3.5, linewidth=1.4,
                  label=f"{NETWORKS[key]} (fastest dense engine: {curve['fastest_dense']})")  # fmt: skip
        lower, upper = zip(*(point["quartiles"] for point in points), strict=True)
        axes.fill_between(at, lower, upper, color=colour, alpha=0.15, linewidth=0)
    axes.axhline(1, color="#333333", linewidth=1)
    axes.set(xlim=(0, 100), yscale="log", xlabel="sparsity in 8×8 blocks, %", ylabel="times as fast",
             title="Speedup over the fastest dense engine")  # fmt: skip
    axes.set_yticks([1, 2, 3, 4, 6, 8, 12], labels=["1", "2", "3", "4", "6", "8", "12"])
    axes.minorticks_off()
    axes.legend(loc="upper left")


def layer_time(results: Path, axes: Axes) -> None:
    """Time against kept blocks, as shares of the fitted time with all blocks; hollow points run on another path."""
    layers = json.loads((results / "layer-time.json").read_text())["layers"]
    for colour, layer in zip(COLOURS, layers, strict=False):
        whole = layer["fixed_microseconds"] + layer["microseconds_of_all_blocks"]
        for fitted, face, label in ((True, colour, f"{layer['layer']} (r² {layer['r_squared']:.3f})"), (False, "white", None)):
            points = [point for point in layer["points"] if point["fitted"] == fitted]
            axes.plot([100 * point["kept"] for point in points], [100 * point["microseconds"] / whole for point in points], "o",
                      color=colour, markerfacecolor=face, markersize=3.5, label=label)  # fmt: skip
        axes.plot([0, 100], [100 * layer["fixed_microseconds"] / whole, 100], color=colour, linewidth=0.8)
    axes.set(xlim=(0, 103), ylim=(0, 110), xlabel="kept blocks, %", ylabel="time, % of all blocks'",
             title="A layer's time against its kept blocks")  # fmt: skip
    axes.legend(loc="upper left")


FIGURES: dict[str, Callable[[Path, Axes], None]] = {"roofline": roofline, "speedup": speedup, "layer-time": layer_time}


def draw(name: str, results: Path, figures: Path) -> None:
    """One figure, into a file that depends on nothing but the results."""
    figures.mkdir(parents=True, exist_ok=True)
    save_figure(figures / f"{name}.svg", partial(FIGURES[name], results))


def main() -> int:
    """Returns the exit status: 0 if every figure was drawn."""
    parser = argparse.ArgumentParser(description="Draw the figures of docs/performance.md.")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--figures", type=Path, default=ROOT / "docs" / "figures")
    asked = parser.parse_args()
    missing = 0
    for name in FIGURES:
        try:
            draw(name, asked.results, asked.figures)
        except FileNotFoundError as error:
            missing += 1
            print(f"{name}.svg: there is no {error.filename}: run the benchmark that makes it (benchmarks/all.py)", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
