"""The README's table comes from the result files, and from nothing else."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from zellige.bench.clock import Timing, ratio
from zellige.bench.comparison import Comparison, Contestant

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


def script(name: str) -> ModuleType:
    """A script of ``benchmarks/`` as a module."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", SCRIPTS / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


readme_table = script("readme_table")


def comparison(sparsity: float) -> Comparison:
    times = {"zellige": (8.0, 8.2, 8.4), "openvino": (18.0, 18.5, 19.0), "ncnn": (24.0, 25.0, 26.0)}
    timings = {name: Timing(rounds, rounds) for name, rounds in times.items()}
    ours = timings["zellige"]
    rivals = [timings["openvino"], timings["ncnn"]]
    return Comparison(
        model="torchvision:resnet50",
        pattern="block:8x8",
        sparsity=sparsity,
        dtype="f32",
        batch=1,
        threads=2,
        contestants={name: Contestant(name, "1.2-build3", {}, 2e-6, timing) for name, timing in timings.items()},
        unavailable={"torch-compile": "no compiler"},
        speedups={name: ratio([timings[name]], ours) for name in ("openvino", "ncnn")},
        over_fastest=ratio(rivals, ours),
        torch_error=1e-6,
        compile_seconds=5.0,
        file_bytes=51,
        dense_bytes=100,
        layers=(),
        conditions={
            "cpu": {"name": "Some CPU", "llvm_name": "znver5", "cpus": 2},
            "weights": "random (seed 0)",
            "rounds": 3,
            "date": "2026-01-02T03:04:05+00:00",
            "summary": "",
        },
    )


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    """Two results, and a README with markers; gives the script's arguments."""
    for sparsity in (0.75, 0.5):
        (tmp_path / f"cpu-{sparsity}.json").write_text(comparison(sparsity).to_json())
    (tmp_path / "README.md").write_text(f"before\n{readme_table.BEGIN}\nyesterday\n{readme_table.END}\nafter\n")
    return ("readme_table.py", "--results", str(tmp_path), "--readme", str(tmp_path / "README.md"))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", list(arguments))
    status: int = readme_table.main()
    return status


def test_the_table_is_written_between_the_markers(
    files: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert run(monkeypatch, *files, "--check") == 1
    assert run(monkeypatch, *files) == 0
    assert run(monkeypatch, *files, "--check") == 0
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "yesterday" not in text
    rows = [line for line in text.splitlines() if line.startswith("| resnet50")]
    assert ["50%" in rows[0], "75%" in rows[1]] == [True, True]
    for expected in (" 8.20 ", "**18.5**", " 25.0 ", "**2.26×** (2.25 to 2.26)", " 2e-06 ", " 0.51 "):
        assert expected in rows[0], expected
    for expected in ("Some CPU (znver5)", "2 threads", "random (seed 0)", "OpenVINO 1.2", "torch.compile did not run"):
        assert text.count(expected) == 1, expected


def test_a_changed_result_makes_it_out_of_date(
    files: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run(monkeypatch, *files)
    plain = json.loads((tmp_path / "cpu-0.5.json").read_text())
    plain["engines"]["zellige"]["median_ms"] = 9.9
    (tmp_path / "cpu-0.5.json").write_text(json.dumps(plain))
    assert run(monkeypatch, *files, "--check") == 1


def test_missing_markers_and_results_are_errors(
    files: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "README.md").write_text("nothing here")
    assert run(monkeypatch, *files) == 1
    assert "expected the markers" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == "nothing here"
    assert run(monkeypatch, *files[:2], str(tmp_path / "none"), *files[3:]) == 1
    assert "there are no results" in capsys.readouterr().err


def test_every_result_of_the_benchmark_has_a_file_of_its_own() -> None:
    series = script("series").SERIES
    names = [one.file_name(level) for one in series for level in one.levels] + [one.curve_file for one in series[:3]]
    assert len(set(names)) == len(names)
    assert {"cpu-resnet50-block8x8-50-batch1.json", "cpu-vgg16-dense-batch1.json", "sparsity-vgg16-block8x8-batch1.json",
            "condition-resnet50-block8x8-50-batch32.json", "condition-resnet50-block8x8-50-batch1-threads1.json",
            "condition-maps-7-block8x8-50-batch1.json"} <= set(names)  # fmt: skip
