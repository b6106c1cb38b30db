"""Profile networks layer by layer, and write what ``zellige profile --json`` writes to ``benchmarks/results``.

    python benchmarks/profiles.py
    python benchmarks/profiles.py --models torchvision:resnet50 --sparsity 0.75

Of several profiles the one with the smallest total is kept, with the peak and the bandwidths that were measured with it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from own_engines import compiled
from result_file import RESULTS, conditions, write_result

from zellige.cpu.host import usable_cpus
from zellige.models import resolve

MODELS = "torchvision:resnet50,torchvision:vgg16,torchvision:inception_v3"


def main() -> int:
    parser = argparse.ArgumentParser(description="Profile networks layer by layer.")
    parser.add_argument("--models", type=lambda text: text.split(","), default=MODELS.split(","))
    parser.add_argument("--pattern", default="block:8x8")
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=usable_cpus())
    parser.add_argument("--profiles", type=int, default=5, help="of which the fastest counts")
    parser.add_argument("--rounds", type=int, default=50, help="calls of which each profile takes the medians")
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args()
    for model in asked.models:
        engine = compiled(resolve(model), asked.pattern, asked.sparsity, asked.threads)
        best = min((engine.profile(asked.rounds) for _ in range(asked.profiles)), key=lambda one: one.total_microseconds)
        print(f"{model}\n{best}\n", flush=True)
        how = f"{asked.pattern.replace(':', '')}-{asked.sparsity * 100:.0f}" if asked.sparsity else "dense"
        facts = {"model": model, "pattern": asked.pattern, "sparsity": asked.sparsity, "profile": best.to_json(),
                 "conditions": conditions(asked.threads, asked.rounds)}
        write_result(asked.results / f"profile-{model.rpartition(':')[2].replace('_', '-')}-{how}-batch1.json", facts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
