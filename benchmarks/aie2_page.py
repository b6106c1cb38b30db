"""Write what ``aie2.py`` estimated into ``docs/aie2.md``.

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

PAGE = Path(__file__).parent.parent / "docs" / "aie2.md"
TITLES = {"resnet50": "ResNet-50", "inception_v3": "Inception V3", "vgg16": "VGG-16"}
PUBLISHED = {"resnet50": (2.95, 2.98), "inception_v3": (9.0, 9.8), "vgg16": (18.1, 19.1)}
"""Milliseconds of an image on a batch handler of AMD's DPU at 1.25 GHz, its 16 cores for convolutions: from the frames a second of
Vitis AI 3.5's model zoo on the V70 and the VEK280, scaled by the clock; VGG-16 there with its fully connected layers."""


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


def main() -> int:
    cells = json.loads((RESULTS / "aie2-ve2802.json").read_text(encoding="utf-8"))["cells"]
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(replaced(text, "<!-- dpu -->", "<!-- /dpu -->", beside_the_dpu(cells)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
