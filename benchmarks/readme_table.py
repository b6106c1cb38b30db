"""Make the README's table of results from the files in ``benchmarks/results``.

    python benchmarks/readme_table.py            # rewrite the part between the markers
    python benchmarks/readme_table.py --check    # only say whether it is up to date

Every number comes from a file; nothing is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pages import bold, milliseconds, replaced, table, times

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- results -->", "<!-- /results -->"
RIVALS = {
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "ncnn": "ncnn",
    "torch": "PyTorch",
    "torch-compile": "torch.compile",
}


def read_results(directory: Path) -> list[dict[str, Any]]:
    """Every result of the CPU benchmark, by network, batch and sparsity."""
    results = [json.loads(path.read_text()) for path in sorted(directory.glob("cpu-*.json"))]
    return sorted(results, key=lambda result: (result["model"], result["batch"], result["sparsity"], result["pattern"]))


def render(results: list[dict[str, Any]]) -> str:
    """The table and its conditions, as Markdown."""
    headings = ["network", "sparsity", "Zellige", *RIVALS.values(), "over the fastest", "error", "file"]
    return "\n".join([table(headings, map(_cells, results)), "", *_conditions(results)])


def _cells(result: dict[str, Any]) -> list[str]:
    engines, fastest = result["engines"], result["fastest_dense"]
    name = result["model"].partition(":")[2] + (f", batch {result['batch']}" if result["batch"] > 1 else "")
    lower, upper = result["speedup_over_fastest_quartiles"]
    return [
        name,
        f"{result['sparsity']:.0%} {result['pattern']}" if result["sparsity"] else "dense",
        _time(engines, "zellige"),
        *(bold(_time(engines, rival), rival == fastest) for rival in RIVALS),
        f"{bold(times(result['speedup_over_fastest']))} ({lower:.2f} to {upper:.2f})",
        f"{result['max_relative_error']:.0e}",
        f"{result['file_bytes'] / result['dense_bytes']:.2f}",
    ]


def _time(engines: dict[str, Any], name: str) -> str:
    return milliseconds(engines[name]["median_ms"]) if name in engines else "–"


def _conditions(results: list[dict[str, Any]]) -> list[str]:
    """What the numbers mean and under which conditions they were taken, each different one once."""
    meaning = (
        "Median milliseconds per call; the fastest dense engine is bold. *Over the fastest*: median over the rounds of the "
        "fastest dense engine's time ÷ Zellige's, and its quartiles. *Error*: largest difference from PyTorch in float64 "
        "÷ largest output. *File*: size of the `.zlg` file ÷ dense f32 weights."
    )
    facts = dict.fromkeys(_facts(result) for result in results)
    return [meaning, "", *(f"Measured: {fact}." for fact in facts)]


def _facts(result: dict[str, Any]) -> str:
    conditions = result["conditions"]
    cpu, engines = conditions["cpu"], result["engines"]
    versions = {RIVALS[name]: engines[name]["version"].split("-")[0] for name in RIVALS if name in engines}
    left_out = [f"{RIVALS.get(name, name)} did not run: {why}" for name, why in result["unavailable"].items()]
    return "; ".join(
        [
            f"{cpu['name']} ({cpu['llvm_name']}), {cpu['cpus']} CPUs, {result['threads']} threads, {result['dtype']}",
            f"weights {conditions['weights']}",
            f"{conditions['rounds']} rounds",
            ", ".join(f"{name} {version}" for name, version in versions.items()),
            *left_out,
            conditions["date"][:10],
        ]
    )


def main() -> int:
    """Returns the exit status: 0 if the README has the table (now)."""
    parser = argparse.ArgumentParser(description="Put the benchmark's results into the README.")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 if the table is out of date")
    asked = parser.parse_args()
    results = read_results(asked.results)
    if not results:
        print(f"there are no results in {asked.results}: run benchmarks/cpu.py first", file=sys.stderr)
        return 1
    text = asked.readme.read_text()
    try:
        fresh = replaced(text, BEGIN, END, render(results))
    except ValueError as error:
        print(f"{asked.readme}: {error}", file=sys.stderr)
        return 1
    if asked.check:
        if fresh != text:
            print(f"{asked.readme}: the table is out of date; run benchmarks/readme_table.py", file=sys.stderr)
        return int(fresh != text)
    asked.readme.write_text(fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main())
