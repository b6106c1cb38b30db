"""Measure how much faster ResNet-50 runs on all CPUs than on one: our engines alone, in turn.

    python benchmarks/thread_scaling.py
    python benchmarks/thread_scaling.py --model torchvision:vgg16 --levels 0.5

The speedup is the median over the rounds of one thread's time ÷ that of all.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from own_engines import engine_calls
from result_file import RESULTS, conditions, write_result

from zellige.bench.clock import ratio, run_rounds
from zellige.cpu.host import usable_cpus


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what more threads bring.")
    parser.add_argument("--model", default="torchvision:resnet50")
    parser.add_argument("--levels", type=lambda text: [float(part) for part in text.split(",")], default=[0.0, 0.5, 0.75, 0.9])
    parser.add_argument("--threads", type=int, default=usable_cpus())
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--result", type=Path, default=RESULTS / "thread-scaling.json")
    asked = parser.parse_args()
    ways = [(f"{level} {threads}", "block:8x8", level, threads) for level in asked.levels for threads in (1, asked.threads)]
    timings = run_rounds(engine_calls(asked.model, ways), asked.rounds)
    rows = []
    for level in asked.levels:
        one, all_of_them = timings[f"{level} 1"], timings[f"{level} {asked.threads}"]
        speedup = ratio([one], all_of_them)
        rows.append({"sparsity": level, "one_thread_ms": one.median_ms, "median_ms": all_of_them.median_ms,
                     "speedup": speedup.median, "quartiles": speedup.quartiles})
        print(f"{level:4.0%}: {one.median_ms:6.2f} ms on one thread, {all_of_them.median_ms:6.2f} on {asked.threads}: "
              f"{speedup.median:.2f} ({speedup.quartiles[0]:.2f} to {speedup.quartiles[1]:.2f})")  # fmt: skip
    write_result(asked.result, {"model": asked.model, "pattern": "block:8x8", "rows": rows,
                                "conditions": conditions(asked.threads, asked.rounds)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
