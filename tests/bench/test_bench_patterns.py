"""The study as a benchmark, on networks that hardly know anything; and its pages, which come from the result alone."""

import json
import sys
from pathlib import Path

import patterns
import patterns_page
import pytest
from stand_in import StandInEngine
from torch import nn

import zellige as zl
from zellige.demo import trained
from zellige.demo.digits import Split

ROOT = Path(__file__).parents[2]


def tiny() -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    body = nn.Sequential(nn.Conv2d(8, 16, 3, stride=4), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3))
    return nn.Sequential(stem, body, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Tiny(nn.Module):
    """A network with the names that the benchmark expects."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.classifier = tiny(), nn.Linear(16, 10)

    def forward(self, x):  # type: ignore[no-untyped-def]
        return self.classifier(self.features(x))


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quick run of all stages, with stand-ins for networks and engines."""
    directory = tmp_path_factory.mktemp("patterns")
    few = tuple(Split(split.images[:64], split.labels[:64]) for split in trained.digits())
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(vars(zl), "compile", lambda model, inputs, **settings: StandInEngine(model))
        patch.setattr(trained, "digits", lambda: few)
        patch.setattr(patterns, "NETWORKS", {"residual": Tiny, "plain": Tiny})
        arguments = ["--quick", "--rounds", "1", "--threads", "1", "--networks", str(directory / "networks")]
        assert patterns.main([*arguments, "--result", str(directory / "patterns.json")]) == 0
    return directory / "patterns.json"


def page(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
    return patterns_page.main()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    for name in patterns_page.PAGES:
        (tmp_path / name).write_text((ROOT / name).read_text())
    return tmp_path


def test_every_stage_leaves_its_part(result: Path) -> None:
    for network in json.loads(result.read_text())["networks"].values():
        assert network["training"]["epochs"] == 1 and network["parameters"] > 3000
        assert network["parts"].keys() == {"patterns", "criteria", "permuted", "as pruned"}
        study = patterns_page.whole(network)
        assert [str(row.trial) for row in study.rows] == [
            "block:8x8 at 0.5 by l1", "block:8x8 at 0.75 by l1", "block:8x1 at 0.5 by l1", "block:8x1 at 0.75 by l1",
            "nm:2:4 at 0.5 by l1"]  # fmt: skip
        assert all(row.speed is not None and row.accuracy is not None for row in study.rows)
        assert [one["pattern"] for one in network["sensitivity"]] == list(patterns.SENSITIVITY)
        assert all(layer["name"] != "classifier" for one in network["sensitivity"] for layer in one["layers"])


def test_pages_and_figures_are_the_results(result: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert page(monkeypatch, "--result", result, "--root", root) == 0
    assert page(monkeypatch, "--result", result, "--root", root, "--check") == 0
    facts = json.loads(result.read_text())
    row = facts["networks"]["plain"]["parts"]["patterns"]["rows"][0]
    speed = facts["networks"]["plain"]["speed"]["rows"][0]["speed"]["over_dense"]
    cells = f"| `block:8x8` | {row['kept_l1']:.1%} | {row['accuracy']:.1%} | {speed:.2f}× |"
    assert cells in (root / "docs" / "pruning.md").read_text()
    drawn = {path.name: path.read_bytes() for path in (root / "docs" / "figures").iterdir()}
    assert drawn.keys() == {"patterns.svg", "sensitivity.svg"}
    assert page(monkeypatch, "--result", result, "--root", root) == 0
    assert drawn == {path.name: path.read_bytes() for path in (root / "docs" / "figures").iterdir()}
    changed = root / "changed.json"
    changed.write_text(result.read_text().replace(f'"kept_l1": {row["kept_l1"]}', '"kept_l1": 0.123'))
    assert page(monkeypatch, "--result", changed, "--root", root, "--check") == 1


def test_what_is_missing_is_said(
    result: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert page(monkeypatch, "--result", root / "none.json", "--root", root) == 1
    assert "run benchmarks/patterns.py first" in capsys.readouterr().err
    facts = json.loads(result.read_text())
    del facts["networks"]["plain"]["speed"]
    (root / "half.json").write_text(json.dumps(facts))
    assert page(monkeypatch, "--result", root / "half.json", "--root", root) == 1
    assert "has no speeds yet" in capsys.readouterr().err
    (root / "README.md").write_text("no markers")
    assert page(monkeypatch, "--result", result, "--root", root) == 1
    assert "expected the markers" in capsys.readouterr().err


def test_the_pages_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    assert page(monkeypatch, "--check") == 0
    for name in ("patterns", "sensitivity"):
        assert f"figures/{name}.svg" in (ROOT / "docs" / "pruning.md").read_text()


def test_unknown_names_are_refused() -> None:
    for arguments in (["--stages", "cook"], ["--parts", "nothing"]):
        with pytest.raises(SystemExit):
            patterns.main(arguments)
