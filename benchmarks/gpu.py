"""Products with sparse weights on one NVIDIA GPU: are they right, and how fast, against cuBLAS in the same run.

    PYTHONPATH=. python benchmarks/gpu.py --results DIRECTORY --budget 280
    PYTHONPATH=. python benchmarks/gpu.py --budget 120 --only convolution backward --results DIRECTORY
    PYTHONPATH=. python benchmarks/gpu.py --one tw2-128 0.5 4096 4096 512     # one layer once in every configuration

needs torch, triton and numpy; for tile-vector-wise layers the CUDA packages that ``docs/gpu.md`` names. Sections run in order
of importance, each guarded and within what is left of the budget (in seconds), and what was measured is written after every
layer, to ``gpu-….json``.

Times are device time: graphs of calls over inputs that together exceed the L2 cache, replayed in turn with the dense
product's, medians. Weights are random with random masks; a layer counts as lost if its answers are off.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import gpu_backward
import gpu_blocks
import gpu_convolution
import gpu_correctness
import gpu_layers
import gpu_networks
import gpu_vectors
import torch
from gpu_run import Run, conditions, say

SECTIONS: dict[str, tuple[Callable[[Run], object], float]] = {
    "compile": (gpu_correctness.compile_ahead, 60), "accesses": (gpu_correctness.accesses, 120),
    "blocks correctness": (gpu_blocks.correctness, 15),
    "correctness": (gpu_correctness.correctness, 60), "ceilings": (gpu_layers.ceilings, 20),
    "blocks": (gpu_layers.blocks, 20), "large layers": (gpu_layers.large, 70), "other sparsities": (gpu_layers.others, 45),
    "tile-vector-wise": (gpu_layers.vectors, 40), "linear": (gpu_layers.linears, 30), "small layers": (gpu_layers.small, 25),
    "tile-vector-wise correctness": (gpu_vectors.correctness, 20), "uneven tiles": (gpu_layers.uneven, 10),
    "max-autotune": (gpu_layers.autotuned, 40),
    "convolution": (gpu_convolution.convolution, 60), "backward": (gpu_backward.backward, 40),
    "compile networks": (gpu_networks.compile_ahead, 100), "networks": (gpu_networks.correctness, 80),
    "bert-base": (gpu_networks.bert, 60),
}
"""Name → what it does, and the seconds that must be left for it to start."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="directory for the JSON file")
    parser.add_argument("--budget", type=float, default=280.0, help="seconds")
    parser.add_argument("--only", choices=SECTIONS, nargs="+", default=list(SECTIONS), help="sections to run")
    parser.add_argument("--one", nargs=5, metavar=("MASK", "SPARSITY", "ROWS", "COLUMNS", "TOKENS"), help="multiply once, no more")
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    if arguments.one:
        mask, sparsity, *sizes = arguments.one
        gpu_correctness.one(mask, float(sparsity), *map(int, sizes))
        return
    run = Run(arguments.results, arguments.budget)
    run.facts["layers"] = []
    say(json.dumps(conditions()))
    query = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,clocks.mem,power.limit", "--format=csv,noheader"]
    say(subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip())
    for name, (work, needs) in SECTIONS.items():
        if name in arguments.only:
            run.section(name, work, needs)


if __name__ == "__main__":
    main()
