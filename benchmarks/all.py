"""Measure everything that the README and ``docs/performance.md`` show, in order of importance, then write tables and figures.

    python benchmarks/all.py                        # an hour on two cores; leave the machine alone meanwhile
    python benchmarks/all.py --list
    python benchmarks/all.py --only conditions,pages
    python benchmarks/all.py --rounds 2 --results /tmp/results     # does it run? Pages and figures are left alone then

Steps are processes of their own; one that fails is named at the end, and the others go on. A file is only replaced by a whole one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results"


@dataclass(frozen=True)
class Step:
    """One script with its arguments; ``file`` is its result where it makes only one, ``count`` its option for the effort."""

    name: str
    command: tuple[str, ...]
    file: str = ""
    count: str = "--rounds"

    def arguments(self, results: Path, rounds: int | None) -> list[str]:
        """The command line."""
        target = ["--result", str(results / self.file)] if self.file else ["--results", str(results)]
        effort = [self.count, str(rounds)] if rounds else []
        return [sys.executable, str(HERE / self.command[0]), *self.command[1:], *target, *effort]


STEPS = (
    Step("networks", ("cpu.py", "--group", "networks")),
    Step("small-networks", ("cpu.py", "--group", "small-networks")),
    Step("profiles", ("profiles.py",)),
    Step("thread-scaling", ("thread_scaling.py",), "thread-scaling.json"),
    Step("matrix-vector", ("matrix_vector.py",), "matrix-vector.json"),
    Step("layer-time", ("layer_time.py",), "layer-time.json"),
    Step("narrow-blocks", ("narrow_blocks.py",), "narrow-blocks.json"),
    Step("conditions", ("cpu.py", "--group", "conditions")),
    Step("avx2", ("avx2.py",)),
    Step("patterns", ("patterns.py",), "patterns.json"),
    Step("call-overhead", ("call_overhead.py",), "call-overhead.json", "--calls"),
)
PAGES = ("readme_table.py", "performance_page.py", "patterns_page.py", "plots.py")


def main() -> int:
    """Run the steps asked for; returns the exit status, 0 only if all of them succeeded."""
    parser = argparse.ArgumentParser(description="Run every benchmark, and write what is shown of it.")
    names = [*(step.name for step in STEPS), "pages"]
    parser.add_argument("--only", type=lambda text: text.split(","), default=names, metavar="NAMES", help="steps, with commas")
    parser.add_argument("--rounds", type=int, help="in place of each script's own number")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--list", action="store_true", help="name the steps and leave")
    asked = parser.parse_args()
    if unknown := set(asked.only) - set(names):
        print(f"unknown steps: {', '.join(sorted(unknown))}; known are {', '.join(names)}", file=sys.stderr)
        return 1
    commands = [(step.name, step.arguments(asked.results, asked.rounds)) for step in STEPS if step.name in asked.only]
    if "pages" in asked.only and asked.results == RESULTS:
        commands += [(page, [sys.executable, str(HERE / page)]) for page in PAGES]
    if asked.list:
        print("\n".join(f"{name:14} {' '.join(command[1:])}" for name, command in commands))
        return 0
    failed = []
    for name, command in commands:
        started = time.perf_counter()
        print(f"===== {name}", flush=True)
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
        print(f"===== {name} took {(time.perf_counter() - started) / 60:.1f} min", flush=True)
    if failed:
        print(f"these did not succeed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
