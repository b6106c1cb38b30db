"""The performance page and its figures come from the result files, and from nothing else."""

import json
import sys
from pathlib import Path

import performance_page
import performance_tables
import plots
import pytest
from series import SERIES, Series

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"


def engine_times(ours: float, theirs: float) -> dict[str, object]:
    return {"zellige": {"median_ms": ours}, "openvino": {"median_ms": theirs}, "ncnn": {"median_ms": 2 * theirs}}


def result(model: str, sparsity: float, ratio: float) -> dict[str, object]:
    return {"model": model, "sparsity": sparsity, "batch": 1, "pattern": "block:8x8" if sparsity else "none",
            "engines": engine_times(8.0, 8.0 * ratio), "fastest_dense": "openvino", "speedup_over_fastest": ratio,
            "speedup": {"openvino": ratio}}  # fmt: skip


ROW = {"name": "conv", "op": "conv2d", "path": "sparse", "microseconds": 100.0, "floor_microseconds": 80.0, "gflops": 400.0,
       "weight_bytes": 1_000_000, "map_bytes": 1_000_000}  # fmt: skip
PROFILE = {"profile": {"rows": [ROW, ROW | {"path": "winograd", "gflops": 900.0, "microseconds": 300.0}], "peak_gflops": 500.0,
                       "bandwidth": {"level2": 400.0, "level3": 200.0, "memory": 60.0}, "total_microseconds": 400.0,
                       "mean_error": 0.05, "weighted_error": 0.04}}  # fmt: skip
POINTS = [{"sparsity": level, "median_ms": 16 * (1 - level), "speedup_over_fastest": 1.1 / (1 - level), "quartiles": [1.0, 2.0]}
          for level in (0.0, 0.5, 0.9)]  # fmt: skip
LINE = {"layer": "1×1 8→8, 7²", "fixed_microseconds": 10.0, "microseconds_of_all_blocks": 90.0, "r_squared": 0.9876,
        "points": [{"kept": 1.0, "microseconds": 100.0, "path": "dense", "fitted": True},
                   {"kept": 0.1, "microseconds": 15.0, "path": "winograd", "fitted": False}]}  # fmt: skip
STREAMED = {"layer": "classifier.0", "sparsity": 0.5, "weight_bytes": 200_000_000, "microseconds": 5000.0,
            "gigabytes_per_second": 40.0, "of_copy": 1.07, "of_read": 0.8}  # fmt: skip


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """One of each kind of result."""
    conditions = {"threads": 2}
    files: dict[str, object] = {
        "cpu-resnet50-dense-batch1.json": result("torchvision:resnet50", 0.0, 1.1),
        "cpu-resnet50-block8x8-50-batch1.json": result("torchvision:resnet50", 0.5, 2.0),
        "narrow-blocks.json": {"rows": [{"pattern": "block:8x1", "sparsity": 0.5, "median_ms": 8.1, "square_over_own": 0.987}]},
        "thread-scaling.json": {"conditions": conditions,
                                "rows": [{"sparsity": 0.5, "one_thread_ms": 15.8, "median_ms": 8.3, "speedup": 1.91}]},
        "layer-time.json": {"layers": [LINE]},
        "matrix-vector.json": {"layers": [STREAMED], "copy_gigabytes_per_second": 37.5, "read_gigabytes_per_second": 50.0},
        "avx2-resnet50-block8x8-50-batch1.json": result("torchvision:resnet50", 0.5, 1.88),
        **{series.file_name(0.5): result(series.model, 0.5, 1.9) for series in SERIES if series.group == "conditions"},
        **{f"profile-{name}-block8x8-50-batch1.json": PROFILE for name in performance_tables.PROFILED},
        **{f"sparsity-{name.replace('_', '-')}-block8x8-batch1.json": {"points": POINTS, "fastest_dense": "ncnn"}
           for name in plots.NETWORKS},
    }  # fmt: skip
    elsewhere = {"cpu": {"name": "Some CPU", "llvm_name": "other", "cpus": 4}, "rounds": 21, "date": "2026-11-26T06:00:00"}
    files["other/cpu-resnet50-block8x8-50-batch1.json"] = (
        result("torchvision:resnet50", 0.5, 1.7) | {"conditions": elsewhere, "threads": 4})
    for name, facts in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(facts))
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, main, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
    status: int = main()
    return status


def test_every_number_of_the_page_is_a_results(results: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    arguments = ("--results", results, "--page", page)
    assert run(monkeypatch, performance_page.main, *arguments) == 0
    assert run(monkeypatch, performance_page.main, *arguments, "--check") == 0
    text = page.read_text()
    for expected in (
        "| resnet50 | OpenVINO, 8.80 | **1.10×** (8.00) | **2.00×** (8.00) |  |  |",
        "Some CPU (other), 4 CPUs, 4 threads, 21 rounds, 2026-11-26:",
        "| resnet50 | OpenVINO, 13.6 |  | **1.70×** (8.00) |  |  |",
        "| ResNet-50, batch 32 | 8.00 | OpenVINO, 15.2 | 1.90× | 2.00× | **0.95** |",
        "| 100 channels beside 96 | 8.00 | OpenVINO, 15.2 | 1.90× | 1.90× | **1.00** |",
        "| ResNet-50, 225 × 225 pixels |",
        "| maps of 7 × 7 beside 8 × 8 |",
        "| 8×1 | 50% | 8.10 | 0.987 |",
        "| 50% | 15.8 | 8.30 | **1.91×** |",
        "| 1×1 8→8, 7² | 10.0 | 90.0 | 10% | 0.9876 |",
        "| classifier.0 | 50% | 200.0 | 5000 | 40.0 | **107%** | 80% |",
        "a copy moved 37.5 GB/s, reading alone 50.0 GB/s",
        "| ResNet-50 | winograd | 1 | 300 | 75% | 900 | 180% | 7 | 27% |",
        "Inception V3 5.0%, 4.0% weighted by time",
        "| **Zellige** | 8.00 |  |",
        "| OpenVINO | 15.0 | 1.88× |",
    ):
        assert expected in text, expected
    (results / "thread-scaling.json").write_text(json.dumps({"conditions": {"threads": 4}, "rows": []}))
    assert run(monkeypatch, performance_page.main, *arguments, "--check") == 1


def test_tables_without_results_stay_and_are_named(
    results: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    run(monkeypatch, performance_page.main, "--results", results, "--page", page)
    whole = page.read_text()
    (results / "layer-time.json").unlink()
    assert run(monkeypatch, performance_page.main, "--results", results, "--page", page) == 1
    assert page.read_text() == whole
    assert "layer-time.json" in capsys.readouterr().err


def test_figures_depend_on_results_alone(results: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def drawn(directory: str) -> dict[str, bytes]:
        assert run(monkeypatch, plots.main, "--results", results, "--figures", tmp_path / directory) == 0
        return {path.name: path.read_bytes() for path in (tmp_path / directory).iterdir()}

    first = drawn("first")
    assert first == drawn("again") and first.keys() == {f"{name}.svg" for name in plots.FIGURES}
    assert all(f"figures/{name}" in PAGE.read_text() for name in first)
    file = results / "layer-time.json"
    file.write_text(file.read_text().replace("0.9876", "0.5"))
    assert {name for name, text in drawn("changed").items() if text != first[name]} == {"layer-time.svg"}


def test_a_missing_figure_is_named(results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (results / "layer-time.json").unlink()
    assert run(monkeypatch, plots.main, "--results", results, "--figures", results / "figures") == 1
    assert "layer-time.svg: there is no" in capsys.readouterr().err
    assert (results / "figures" / "roofline.svg").exists()


def test_series_say_what_they_are() -> None:
    assert performance_tables.described(Series("conditions", "torchvision:resnet50", threads=1)) == "ResNet-50, one thread"
    assert Series("conditions", "python:odd_networks:maps_7").file_name(0.0) == "condition-maps-7-dense-batch1.json"
