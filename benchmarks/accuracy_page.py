"""Write the tables and curves of ``accuracy.py`` and ``training_step.py`` into ``docs/training.md``.

    python benchmarks/accuracy_page.py               # all parts: digits, text, steps, gpu-steps
    python benchmarks/accuracy_page.py digits steps

Every number comes from the result files; nothing is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pages import bold, replaced, table
from result_file import RESULTS

from zellige.figures import look, save_figure

ROOT = Path(__file__).parent.parent
PAGE, FIGURES = ROOT / "docs" / "training.md", ROOT / "docs" / "figures"
TITLES = {"residual": "residual network", "vgg": "VGG-like network"}
DRAWN = ("block:8x8", "block:8x1", "unstructured")
SIZE = (8.4, 3.6)  # inches


def digits(facts: dict[str, dict[str, Any]]) -> str:
    """For each network: accuracies by pattern and sparsity, means and spreads over the folds."""
    parts = []
    for name, title in TITLES.items():
        found = facts[name]
        dense, *others = found["summary"]
        images = f"dense: {_share(dense['fine_tuned'])}, {found['folds']} folds"
        lines = [[f"`{row['pattern']}`", f"{row['sparsity']:.0%}", *(_share(row[kind]) for kind in
                  ("one_shot", "statistics", "fine_tuned")), bold(f"{row['lost_points']:+.2f}", row["pattern"] == "block:8x8")]
                 for row in others]
        parts += [f"**{title[0].upper() + title[1:]}**, {images}", "",
                  table(["pattern", "sparsity", "one-shot", "with new statistics", "fine-tuned", "points lost"], lines), ""]
    return "\n".join([*parts, f"By `benchmarks/accuracy.py`, {_conditions(facts['residual'])}."])


STARTS = {"obs": "block-OBS, then `fixed`", "gradual": "`gradual`"}


def text(facts: dict[str, Any]) -> str:
    """Bits per byte of the language model."""
    dense, *others = facts["rows"]
    lines = [["dense", "", f"{dense['history'][-1]['step']}", f"{dense['bits']:.4f}", ""]]
    lines += [[STARTS[row["start"]], f"{row['sparsity']:.0%}", f"{row['history'][-1]['step']}", f"{row['bits']:.4f}",
               f"{row['over_dense']:+.2%}"] for row in others]
    return "\n".join([table(["`block:8x8`", "sparsity", "steps", "bits per byte", "over dense"], lines), "",
                      f"By `benchmarks/accuracy.py text`, {_conditions(facts)}."])


def steps(facts: dict[str, Any]) -> str:
    """What a step with masks takes, over one without."""
    lines = [[row["case"], f"{row['dense_ms']:.1f}", f"{row['sparse_ms']:.1f}", _more(row)] for row in facts["rows"]]
    return "\n".join([table(["network and batch", "dense, ms", "with masks, ms", "more (quartiles)"], lines), "",
                      f"By `benchmarks/training_step.py`, AdamW, {facts['rounds']} rounds, {_conditions(facts)}."])


def gpu_steps(facts: dict[str, Any]) -> str:
    """The same on a GPU, by what is done in a second."""
    lines = [[row["case"], f"{1e3 * row['samples'] / row['dense_ms']:,.0f}", f"{1e3 * row['samples'] / row['sparse_ms']:,.0f}",
              _more(row)] for row in facts["rows"]]
    titles = ["network and batch", "dense, images or bytes a second", "with masks", "more time (quartiles)"]
    return "\n".join([table(titles, lines), "",
                      f"By `benchmarks/training_step.py --device cuda`, {facts['gpu']}, autocast to bfloat16, AdamW, "
                      f"{facts['rounds']} rounds, PyTorch {facts['versions']['torch']}, {facts['date'][:10]}."])


def _more(row: dict[str, Any]) -> str:
    return "{:+.1%} ({:+.1%} to {:+.1%})".format(*(share - 1 for share in (row["ratio"], *row["quartiles"])))


def _share(found: dict[str, float]) -> str:
    return f"{found['mean']:.2%} ± {100 * found['spread']:.2f}"


def _conditions(facts: dict[str, Any]) -> str:
    cpu, torch = facts["cpu"], facts["versions"]["torch"]
    return f"{cpu['name']} ({cpu['llvm_name']}), {facts['threads']} thread(s), PyTorch {torch}, {facts['date'][:10]}"


def digits_curves(facts: dict[str, dict[str, Any]], axes: Any) -> None:
    """The errors of the first fold while it is tuned at 75 %, by network."""
    for panel, (name, title) in zip(axes, TITLES.items(), strict=True):
        rows = [row for row in facts[name]["rows"] if row["fold"] == 0]
        for place, row in enumerate(row for row in rows if row["pattern"] in DRAWN and row["sparsity"] == 0.75):
            _line(panel, row["history"], "accuracy", f"{row['pattern']} 75%", place, lambda share: 100 * (1 - share))
        panel.axhline(100 * (1 - rows[0]["fine_tuned"]), color="#888888", linestyle="--", label="dense")
        panel.set(title=title, xlabel="step", ylabel="wrong, % of the validation images")
        panel.legend()


def text_curves(facts: dict[str, Any], axes: Any) -> None:
    """Bits per byte, dense and while it is pruned."""
    for place, row in enumerate(facts["rows"]):
        _line(axes, row["history"], "bits", f"{row['start']} {row['sparsity']:.0%}" if place else "dense", place)
    axes.set(xlabel="step", ylabel="bits per byte, validation")
    axes.legend()


def _line(panel: Any, history: Iterable[dict[str, Any]], key: str, label: str, place: int, form: Any = float) -> None:
    points = [(row["step"], form(row[key])) for row in history if row[key] is not None]
    panel.plot(*zip(*points, strict=True), label=label, **look(place))


def read(name: str) -> dict[str, Any]:
    return dict(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")))


def digits_part() -> str:
    facts = {name: read(f"accuracy-{name}") for name in TITLES}
    save_figure(FIGURES / "learning-digits.svg", lambda axes: digits_curves(facts, axes), panels=2, size=SIZE)
    return digits(facts)


def text_part() -> str:
    facts = read("accuracy-text")
    save_figure(FIGURES / "learning-text.svg", lambda axes: text_curves(facts, axes))
    return text(facts)


PARTS = {"digits": digits_part, "text": text_part, "steps": lambda: steps(read("training-step")),
         "gpu-steps": lambda: gpu_steps(read("training-step-gpu"))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    page = PAGE.read_text(encoding="utf-8")
    for name in parser.parse_args().parts:
        page = replaced(page, f"<!-- {name} -->", f"<!-- /{name} -->", PARTS[name]())
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
