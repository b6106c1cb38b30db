"""Write the tables of one-shot pruning into ``docs/pruning.md``, from what ``benchmarks/one_shot.py`` measured.

    python benchmarks/one_shot_tables.py
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from one_shot import SPARSITIES, WAYS
from pages import bold, replaced, table
from result_file import RESULTS

PAGE = Path(__file__).parent.parent / "docs" / "pruning.md"


def digits(rows: list[dict[str, Any]]) -> str:
    """Accuracy by way and sparsity, as pruned and with new batch-norm statistics, each the mean over the seeds; and the mean output
    error of the layers."""
    def of(key: str, way: str, sparsity: float) -> list[float]:
        return [row[key] for row in rows if (row["way"], row["sparsity"]) == (way, sparsity) and key in row]

    def cell(way: str, sparsity: float) -> str:
        found = of("accuracy_new_statistics", way, sparsity)
        best = max(statistics.mean(of("accuracy_new_statistics", other, sparsity)) for other in WAYS)
        renewed = bold(f"{statistics.mean(found):.1%}", statistics.mean(found) == best)
        return f"{statistics.mean(of('accuracy', way, sparsity)):.1%} / {renewed}"

    def error(way: str, sparsity: float) -> str:
        found, plain = (of(key, way, sparsity) for key in ("output_error", "output_error_by_magnitude"))
        return f"{statistics.mean(found):.1%} / {statistics.mean(plain):.1%}" if found else "–"

    headings = ["way", *(f"accuracy at {share:.0%}" for share in SPARSITIES), *(f"error at {share:.0%}" for share in SPARSITIES)]
    lines = [[f"`{way}`", *(cell(way, share) for share in SPARSITIES), *(error(way, share) for share in SPARSITIES)]
             for way in WAYS]
    dense = [row["accuracy"] for row in rows if row["way"] == "dense"]
    return "\n".join([
        table(headings, lines), "",
        "Accuracy on 360 test images of scikit-learn's digits, by the demonstration's network "
        f"({statistics.mean(dense):.1%} when dense), pruned in 8×8 blocks without any training after it: as pruned / once batch "
        "norms have new statistics (`zl.take_statistics`), of the 256 training images that calibrate too. "
        f"{'One network' if len(dense) == 1 else f'Mean over {len(dense)} networks, trained from different seeds'}. "
        "Error: ‖(W − Ŵ)X‖² ÷ ‖WX‖², the mean over the layers, on 256 other training images / that of zeroing by magnitude on "
        "the same inputs. By `benchmarks/one_shot.py digits`, in `benchmarks/results/one-shot-digits.json`. On one small network "
        "and easy images; of 360 a point or two is chance."])


def resnet50(rows: list[dict[str, Any]]) -> str:
    """What the solvers took."""
    headings = ["solver", "images", "held out", "threads", "wall minutes", "CPU minutes", "of that solving", "peak memory, GB",
                "output error"]
    lines = [[f"`{row['solver']}`", str(row["images"]), str(row["held_out"]), str(row["threads"]), f"{row['wall_s'] / 60:.1f}",
              f"{row['cpu_s'] / 60:.1f}", f"{row['solving_cpu_s'] / 60:.1f}", f"{row['peak_memory_gb']:.1f}",
              f"{_mean(row, 'output_error'):.1%} / {_mean(row, 'output_error_by_magnitude'):.1%}"] for row in rows]
    measured = [row["conditions"] for row in rows]
    cpus = dict.fromkeys(f"{told['cpu']['name']} ({told['cpu']['llvm_name']}), {told['date'][:10]}" for told in measured)
    return "\n".join([
        table(headings, lines), "",
        f"ResNet-50 at 224×224, 8×8 blocks at 50 %, 53 layers; random weights and images. By `benchmarks/one_shot.py resnet50` on "
        f"{'; '.join(cpus)}. CPU minutes are those of all threads; waiting in one for another counts."])


def _mean(row: dict[str, Any], key: str) -> float:
    return statistics.mean(layer[key] for layer in row["layers"])


def main() -> int:
    text = PAGE.read_text(encoding="utf-8")
    for name, made in (("digits", digits), ("resnet50", resnet50)):
        rows = json.loads((RESULTS / f"one-shot-{name}.json").read_text(encoding="utf-8"))["rows"]
        text = replaced(text, f"<!-- one-shot {name} -->", f"<!-- /one-shot {name} -->", made(rows))
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
