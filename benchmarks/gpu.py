"""Products with sparse weights on one NVIDIA GPU: are they right, and how fast, against cuBLAS in the same run.

    PYTHONPATH=. python benchmarks/gpu.py --results DIRECTORY
    PYTHONPATH=. python benchmarks/gpu.py --budget 120 --join --only convolution backward --results DIRECTORY
    PYTHONPATH=. python benchmarks/gpu.py --one tw2-128 0.5 4096 4096 512     # one layer once in every configuration

needs torch, triton and numpy; for kernels in CUDA C++ the packages that ``docs/gpu.md`` names. Correctness comes first. Every
section is guarded, has seconds of its own and takes no more than what is left of the budget, by default less than eight minutes
in all; what it did not come to, it says, and another run with ``--join`` adds that to the same file. What was measured is written
after every layer, to ``gpu-….json``.

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
import gpu_block_convolution
import gpu_blocks
import gpu_compiled
import gpu_convolution
import gpu_correctness
import gpu_fp8
import gpu_layers
import gpu_networks
import gpu_vectors
import torch
from gpu_run import Run, conditions, say

SECTIONS: dict[str, tuple[Callable[[Run], object], float, float]] = {
    "compile": (gpu_correctness.compile_ahead, 20, 25), "compile networks": (gpu_networks.compile_ahead, 20, 20),
    "blocks correctness": (gpu_blocks.correctness, 10, 15), "correctness": (gpu_correctness.correctness, 20, 60),
    "tile-vector-wise correctness": (gpu_vectors.correctness, 15, 30), "networks": (gpu_networks.correctness, 30, 50),
    "compiled": (gpu_compiled.compiled, 20, 40),
    "ceilings": (gpu_layers.ceilings, 5, 5), "blocks": (gpu_layers.blocks, 10, 25), "blocks 2:4": (gpu_layers.two_four, 10, 22),
    "paired blocks": (gpu_layers.paired, 10, 25),
    "block convolution": (gpu_block_convolution.block_convolution, 15, 35), "fp8": (gpu_fp8.fp8, 17, 26),
    "large layers": (gpu_layers.large, 15, 25), "tile-vector-wise": (gpu_layers.vectors, 10, 22),
    "other sparsities": (gpu_layers.others, 15, 22), "bert-base": (gpu_networks.bert, 40, 85), "vgg-16": (gpu_networks.vgg, 20, 55),
    "resnet-50": (gpu_networks.resnet, 20, 60), "linear": (gpu_layers.linears, 8, 16), "backward": (gpu_backward.backward, 15, 22),
    "small layers": (gpu_layers.small, 8, 14), "convolution": (gpu_convolution.convolution, 20, 40),
    "max-autotune": (gpu_layers.autotuned, 20, 35), "accesses": (gpu_correctness.accesses, 20, 30),
    "uneven tiles": (gpu_layers.uneven, 5, 8),
}
"""Name → what it does, the seconds that must be left for it to start, and those that it may take."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="directory for the JSON file")
    parser.add_argument("--budget", type=float, default=465.0, help="seconds")
    parser.add_argument("--only", choices=SECTIONS, nargs="+", default=list(SECTIONS), help="sections to run")
    parser.add_argument("--join", action="store_true", help="keep what the file has from an earlier run of other sections")
    parser.add_argument("--one", nargs=5, metavar=("MASK", "SPARSITY", "ROWS", "COLUMNS", "TOKENS"), help="multiply once, no more")
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    if arguments.one:
        mask, sparsity, *sizes = arguments.one
        gpu_correctness.one(mask, float(sparsity), *map(int, sizes))
        return
    run = Run(arguments.results, arguments.budget, arguments.join)
    run.facts["layers"] = []
    say(json.dumps(conditions()))
    query = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,clocks.mem,power.limit", "--format=csv,noheader"]
    say(subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip())
    for name, (work, least, most) in SECTIONS.items():
        if name in arguments.only:
            run.section(name, work, least, most)


if __name__ == "__main__":
    main()
