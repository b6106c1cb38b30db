"""Measure at what share of the memory's bandwidth VGG-16's classifier reads its kept weights.

    python benchmarks/matrix_vector.py

The classifier's three layers run in their place in the network, so their weights come from memory. Beside them, in every
round, stand the bandwidth of a copy (bytes read and bytes written, on as many threads, each its own 128 MB) and that of reading
alone, which ``Engine.profile`` measures. Only what the layer needs is counted: kept weights and their indices.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from own_engines import compiled
from result_file import RESULTS, conditions, write_result

from zellige.cpu.host import usable_cpus
from zellige.models import resolve

COPIED = 128 << 20
COPIES = 5


class Copy:
    """Copies of large arrays, one pair a thread; numpy lets other threads run meanwhile."""

    def __init__(self, threads: int) -> None:
        self.pairs = [(np.ones(COPIED, np.uint8), np.ones(COPIED, np.uint8)) for _ in range(threads)]
        self.threads = ThreadPoolExecutor(threads)

    def gigabytes_per_second(self) -> float:
        """The best of a few."""
        return max(self._once() for _ in range(COPIES))

    def _once(self) -> float:
        start = time.perf_counter()
        list(self.threads.map(lambda pair: np.copyto(*pair), self.pairs))
        return 2 * COPIED * len(self.pairs) / (time.perf_counter() - start) / 1e9


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure matrix-vector layers against the memory's bandwidth.")
    parser.add_argument("--levels", type=lambda text: [float(part) for part in text.split(",")], default=[0.0, 0.5, 0.75])
    parser.add_argument("--threads", type=int, default=usable_cpus())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--result", type=Path, default=RESULTS / "matrix-vector.json")
    asked = parser.parse_args()
    named = resolve("torchvision:vgg16")
    engines = {level: compiled(named, "block:8x8", level, asked.threads) for level in asked.levels}
    copy = Copy(asked.threads)
    rounds = [(copy.gigabytes_per_second(), {level: engine.profile(rounds=10) for level, engine in engines.items()})
              for _ in range(asked.rounds)]
    layers = []
    for level in asked.levels:
        profiles = [profiles[level] for _, profiles in rounds]
        for index, row in enumerate(profiles[0].rows):
            if row.path != "matrix-vector":
                continue
            speeds = [profile.rows[index].weight_bytes / profile.rows[index].microseconds / 1e3 for profile in profiles]
            of_copy = statistics.median(speed / copied for speed, (copied, _) in zip(speeds, rounds, strict=True))
            of_read = statistics.median(speed / profile.bandwidth.memory for speed, profile in zip(speeds, profiles, strict=True))
            layers.append({"sparsity": level, "layer": row.name, "weight_bytes": row.weight_bytes,
                           "microseconds": statistics.median(profile.rows[index].microseconds for profile in profiles),
                           "gigabytes_per_second": statistics.median(speeds), "of_copy": of_copy, "of_read": of_read})
            print(f"{level:4.0%} {row.name:14} {row.weight_bytes / 1e6:6.1f} MB {statistics.median(speeds):6.1f} GB/s, "
                  f"{of_copy:.0%} of a copy's, {of_read:.0%} of reading's", flush=True)  # fmt: skip
    write_result(asked.result, {
        "model": "torchvision:vgg16", "pattern": "block:8x8", "layers": layers,
        "copy_gigabytes_per_second": statistics.median(copied for copied, _ in rounds),
        "read_gigabytes_per_second": statistics.median(one.bandwidth.memory for _, profiles in rounds for one in profiles.values()),
        "conditions": conditions(asked.threads, asked.rounds),
    })  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
