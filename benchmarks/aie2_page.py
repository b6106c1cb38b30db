"""Write what ``aie2.py`` and ``aie2_bounds.py`` estimated into ``docs/aie2.md``, and draw the figure of the sensitivity.

    python benchmarks/aie2_page.py

Every number of ours comes from the result file; what AMD publishes stands here, with its source.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pages import replaced, table
from result_file import RESULTS

from zellige.figures import look, save_figure

PAGE = Path(__file__).parent.parent / "docs" / "aie2.md"
FIGURE = PAGE.parent / "figures" / "aie2-sensitivity.svg"
DESIGNS = ("one stream, host memory", "one stream, all resident", "two streams, all resident", "four streams, all resident",
           "two streams shared by pairs, all resident", "streams for nothing, all resident")
"""Those of ``aie2_bounds.py``; what is built lies between the first two."""

TITLES = {"resnet50": "ResNet-50", "inception_v3": "Inception V3", "vgg16": "VGG-16"}
PUBLISHED = {"resnet50": (2.95, 2.98), "inception_v3": (9.0, 9.8), "vgg16": (18.1, 19.1)}
"""Milliseconds of an image on a batch handler of AMD's DPU at 1.25 GHz, its 16 cores for convolutions: from the frames a second of
Vitis AI 3.5's model zoo on the V70 and the VEK280, scaled by the clock; VGG-16 there with its fully connected layers."""


PAPER: dict[str, dict[str, tuple[float | None, float | None]]] = {
    "resnet50": {"2x2": (24.92, 15.83), "3x3": (12.70, 8.66), "4x4": (10.77, 7.06), "5x5": (None, 4.30), "6x6": (5.71, 4.49),
                 "7x7": (4.21, 3.21), "8x8": (6.38, 4.60)},
    "inception_v3": {"2x2": (42.84, 24.41), "3x3": (23.87, 14.22), "4x4": (17.41, 10.13), "5x5": (9.69, None), "6x6": (10.64, 6.44),
                     "7x7": (8.73, None), "8x8": (9.09, 5.67)},
    "vgg16": {"2x2": (44.76, 26.09), "3x3": (None, 10.02), "4x4": (13.71, 8.85), "5x5": (None, 4.34), "6x6": (None, 5.77),
              "7x7": (7.46, 5.29), "8x8": (9.20, 6.50)},
}  # fmt: skip
"""Milliseconds, dense and at 50 %, that D'Alberto et al. estimate; ``None`` where their compiler fails."""


def beside_the_dpu(cells: dict[str, Any]) -> str:
    """Our estimates for 16 cores, and what bounds most of the dense time."""
    rows = []
    for name, title in TITLES.items():
        dense, pruned = (cells[f"{name} {share}"] for share in ("0", "0.5"))
        low, high = PUBLISHED[name]
        bounds = ", ".join(f"{bound} {ms / dense['ms']:.0%}" for bound, ms in list(dense["bounds"].items())[:3])
        rows.append([title, f"{dense['ms']:.2f}", f"{pruned['ms']:.2f}", f"{dense['ms'] / pruned['ms']:.2f}", f"{low} – {high}",
                     f"{dense['ms'] / ((low + high) / 2):.2f}", bounds])
    return table(["network", "dense, ms", "50 %, ms", "ratio", "DPU, ms", "dense over DPU", "what bounds dense phases"], rows)


def beside_the_paper(cells: dict[str, Any]) -> str:
    """Dense and pruned milliseconds of every overlay, with their ratio; the paper's below each."""
    sides = list(PAPER["resnet50"])
    rows = []
    for side in sides:
        cell = [side]
        for name in TITLES:
            dense, pruned = (cells[f"{name} {side} {share}"]["ms"] for share in ("0", "0.5"))
            cell += [f"{dense:.2f} / {pruned:.2f} ({dense / pruned:.2f})", _theirs(*PAPER[name][side])]
        rows.append(cell)
    return table(["overlay", *(heading for title in TITLES.values() for heading in (title, "the paper's"))], rows)


def _theirs(dense: float | None, pruned: float | None) -> str:
    ratio = f" ({dense / pruned:.2f})" if dense and pruned else ""
    return " / ".join("fails" if value is None else f"{value:.2f}" for value in (dense, pruned)) + ratio


def at_best(cells: dict[str, Any]) -> str:
    """What ResNet-50 takes at least, design by design."""
    rows = []
    for side in PAPER["resnet50"]:
        both = [[cells[f"resnet50 {side} {share} {design}"] for share in ("0", "0.5")] for design in DESIGNS]
        rows.append([side, *(f"{dense:.2f} / {pruned:.2f} ({dense / pruned:.2f})" for dense, pruned in both)])
    return table(["overlay", *DESIGNS], rows)


def what_stays(cells: dict[str, Any]) -> str:
    """ResNet-50 with all values in host memory between phases, and with those in memory tiles that pay."""
    rows = []
    for device in ("ve2802", "npu1"):
        host, stays = ([cells[f"{device} {where} {share}"] for share in ("0", "0.5")] for where in ("host", "stays"))
        times = [f"{was['ms']:.2f} → {now['ms']:.2f} ({was['ms'] / now['ms']:.2f})" for was, now in zip(host, stays, strict=True)]
        ratios = " → ".join(f"{dense['ms'] / pruned['ms']:.2f}" for dense, pruned in (host, stays))
        bounds = (", ".join(f"{bound} {ms / found[0]['ms']:.0%}" for bound, ms in list(found[0]["bounds"].items())[:3])
                  for found in (host, stays))
        rows.append([device, *times, ratios, *bounds])
    return table(["device", "dense, ms", "50 %, ms", "dense over 50 %", "dense phases were bound by", "and now by"], rows)


SETTINGS = {"clock": ("clock, GHz", 1e9), "ddr_bytes": ("external memory, GB/s", 1e9), "macs": ("products a cycle and core", 1.0)}
"""What is varied: how an axis is called, and its unit."""


def draw_sensitivity(cells: dict[str, Any]) -> None:
    """ResNet-50, dense and pruned, against what is not known well."""
    def draw(axes: Any) -> None:  # Any: matplotlib's own types come and go
        for panel, (what, (label, unit)) in zip(axes, SETTINGS.items(), strict=True):
            for at, (share, name) in enumerate((("0", "dense"), ("0.5", "half of the blocks"))):
                found = sorted((float(key.split()[1]) / unit, cell["ms"]) for key, cell in cells.items()
                               if key.split()[0] == what and key.split()[2] == share)
                panel.plot(*zip(*found, strict=True), label=name, **look(at))
            panel.set_xlabel(label)
            panel.set_ylim(bottom=0)
        axes[0].set_ylabel("ResNet-50, ms (an estimate)")
        axes[0].legend()

    save_figure(FIGURE, draw, panels=len(SETTINGS))


PARTS = {"dpu": ("aie2-ve2802", beside_the_dpu), "paper": ("aie2-paper", beside_the_paper), "bounds": ("aie2-bounds", at_best),
         "staying": ("aie2-staying", what_stays)}


def _cells(file: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{file}.json").read_text(encoding="utf-8"))["cells"]
    return found


def main() -> int:
    text = PAGE.read_text(encoding="utf-8")
    for name, (file, made) in PARTS.items():
        text = replaced(text, f"<!-- {name} -->", f"<!-- /{name} -->", made(_cells(file)))
    draw_sensitivity(_cells("aie2-sensitivity"))
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
