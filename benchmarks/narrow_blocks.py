"""Measure ResNet-50 pruned in blocks of 8×8, 8×4 and 8×1: our engines alone, in turn.

    python benchmarks/narrow_blocks.py

Narrow blocks keep more of the weights' mass; here it shows what they cost. The ratio is the median over the rounds of the time
of 8×8 blocks ÷ that of the narrower ones at the same sparsity.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from own_engines import engine_calls
from result_file import RESULTS, conditions, write_result

from zellige.bench.clock import ratio, run_rounds
from zellige.cpu.host import usable_cpus

SQUARE, *NARROW = ("block:8x8", "block:8x4", "block:8x1")


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what narrow blocks cost.")
    parser.add_argument("--model", default="torchvision:resnet50")
    parser.add_argument("--levels", type=lambda text: [float(part) for part in text.split(",")], default=[0.5, 0.75, 0.9])
    parser.add_argument("--threads", type=int, default=usable_cpus())
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--result", type=Path, default=RESULTS / "narrow-blocks.json")
    asked = parser.parse_args()
    ways = [(f"{level} {pattern}", pattern, level, asked.threads) for level in asked.levels for pattern in (SQUARE, *NARROW)]
    timings = run_rounds(engine_calls(asked.model, ways), asked.rounds)
    rows = []
    for level in asked.levels:
        square = timings[f"{level} {SQUARE}"]
        for pattern in (SQUARE, *NARROW):
            own = timings[f"{level} {pattern}"]
            relative = ratio([square], own)
            rows.append({"sparsity": level, "pattern": pattern, "median_ms": own.median_ms,
                         "square_over_own": relative.median, "quartiles": relative.quartiles})
            print(f"{level:4.0%} {pattern:9}: {own.median_ms:6.2f} ms, {relative.median:.3f} of the speed of {SQUARE} "
                  f"({relative.quartiles[0]:.3f} to {relative.quartiles[1]:.3f})")  # fmt: skip
    write_result(asked.result, {"model": asked.model, "rows": rows, "conditions": conditions(asked.threads, asked.rounds)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
