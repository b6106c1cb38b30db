"""Products with sparse weights on one NVIDIA GPU: are they right, and how fast, against cuBLAS in the same run.

    PYTHONPATH=. python benchmarks/gpu.py --results DIRECTORY
    PYTHONPATH=. python benchmarks/gpu.py --only "convolution correctness" convolution --join --results DIRECTORY
    PYTHONPATH=. python benchmarks/gpu.py --one tw2-128 0.5 4096 4096 512     # one layer once in every configuration

needs torch, triton and numpy; for kernels in CUDA C++ the packages that ``docs/gpu.md`` names. The budget, less than eight minutes,
is made for an H100 with 16 cores. First everything is checked side by side, and whatever will be timed is compiled; then each thing
that is timed has the GPU for itself, section after section (``gpu_plan.py``). What it did not come to, it says, and another run
with ``--join`` adds that to the same file. What was measured is written after every layer, to ``gpu-….json``.

Times are device time: graphs of calls over inputs that together exceed the L2 cache, replayed in turn with the dense
product's, medians. Weights are random with random masks; a layer counts as lost if its answers are off.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import gpu_caches
import gpu_correctness
import torch
import torch._inductor.config
from gpu_plan import BUDGET, FAST, RIGHT, RIGHT_SECONDS
from gpu_record import Record, conditions, say
from gpu_run import ends, one_by_one, side_by_side
from gpu_workers import ANEW, FORKED, Workers

BEGIN_SECONDS = 60.0


def main() -> None:
    begin = time.monotonic()
    sections = [*RIGHT, *FAST]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="directory for the JSON file")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds")
    parser.add_argument("--only", choices=sections, nargs="+", default=sections, metavar="SECTION", help=", ".join(sections))
    parser.add_argument("--join", action="store_true", help="keep what the file has from an earlier run of other sections")
    parser.add_argument("--processes", choices=(FORKED, ANEW), default=FORKED, help="how they begin")
    parser.add_argument("--one", nargs=5, metavar=("MASK", "SPARSITY", "ROWS", "COLUMNS", "TOKENS"), help="multiply once, no more")
    arguments = parser.parse_args()
    if arguments.one:
        mask, sparsity, *sizes = arguments.one
        torch.backends.cuda.matmul.allow_tf32 = False
        gpu_correctness.one(mask, float(sparsity), *map(int, sizes))
        return
    run(Record(arguments.results, conditions(), arguments.join), set(arguments.only), begin, arguments.budget, arguments.processes)


def run(record: Record, only: set[str], begin: float, budget: float, processes: str) -> None:
    """The sections that are asked for, from ``begin`` on, within so many seconds."""
    say(json.dumps(record.conditions))
    query = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,clocks.mem,power.limit", "--format=csv,noheader"]
    say(subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip())
    right = {name: section for name, section in RIGHT.items() if name in only}
    fast = {name: section for name, section in FAST.items() if name in only}
    last = ends([RIGHT_SECONDS] * bool(right) + [seconds for _, seconds in fast.values()], begin, budget)
    gpu_caches.forget_choices()
    cores, caches = max(1, (os.cpu_count() or 1) - 2), gpu_caches.environment()
    with Workers(bool(fast), partial(begin_process, caches, None), processes) as alone:
        with Workers(cores * bool(right), partial(begin_process, caches, 1), processes) as together:
            check_begun(together if right else alone, last[-1])
            side_by_side(record, together, right, last[0])
        gpu_caches.forget_choices()
        say(f"== {time.monotonic() - begin:.0f} s are over")
        one_by_one(record, alone, fast, last[len(last) - len(fast):])


def check_begun(workers: Workers, end: float) -> None:
    """``SystemExit`` if processes can't use the GPU."""
    for _, _, reason in workers.each(repr, [None], BEGIN_SECONDS, end):
        if reason:
            raise SystemExit(f"{reason}; --processes {ANEW} begins them in another way")


def begin_process(caches: Mapping[str, str], threads: int | None) -> None:
    """What a process does before its first job; ``caches``: variables that say where they are, ``threads``: that PyTorch may
    compute or compile with on CPUs, else as many as it likes."""
    os.environ.update(caches)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # what answers are compared with
    if threads:
        torch.set_num_threads(threads)
        torch._inductor.config.compile_threads = threads
    torch.zeros(1, device="cuda")


if __name__ == "__main__":
    main()
