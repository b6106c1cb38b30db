"""Every verb around a stand-in engine: what it writes, what it prints, which status it ends with."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run
from safetensors.torch import load_file
from stand_in import StandInEngine, tiny_network

import zellige as zl
from zellige.cli.application import VERBS
from zellige.cpu.calibrate import Calibration
from zellige.cpu.costs import Costs, Family
from zellige.cpu.host import host_isa
from zellige.cpu.known_costs import known_costs

MODEL = "python:tiny_networks:build"
FACTORY = """
import torch
from stand_in import tiny_network

def build():
    return tiny_network(), (torch.ones(1, 3, 16, 16),)
"""


class Verified:
    max_absolute_error = 2e-6
    max_relative_error = 1e-6


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a factory in it, and stand-ins for compiling, loading and verifying."""
    (tmp_path / "tiny_networks.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "tiny_networks", raising=False)
    names = vars(zl)
    monkeypatch.setitem(names, "compile", lambda model, inputs, **settings: StandInEngine(model))
    monkeypatch.setitem(names, "load", lambda path, **settings: StandInEngine(tiny_network()))
    monkeypatch.setitem(names, "verify", lambda model, engine, inputs: Verified())
    return tmp_path



def test_prune_writes_weights_with_zeros_that_other_verbs_take(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--pattern", "block:8x8", "--sparsity", 0.5)
    assert run("prune", MODEL, *asked, "-o", "w.safetensors", "--json", "p.json", "--target", "4") == 0
    printed = capsys.readouterr().out
    assert "block:8x8" in printed and "written to w.safetensors" in printed
    weight = load_file(here / "w.safetensors")["4.weight"]
    assert float((weight == 0).float().mean()) == 0.5
    report = json.loads((here / "p.json").read_text())
    assert report["pattern"] == "block:8x8" and report["totals"]["sparsity"] == 0.5
    assert run("verify", MODEL, "--weights", "w.safetensors") == 0
    assert "from w.safetensors" in capsys.readouterr().out


def test_prune_takes_a_budget_or_a_scope_by_form(here: Path) -> None:
    asked = ("--pattern", "block:8x8", "-o", "w.safetensors", "--json", "p.json")
    assert run("prune", MODEL, *asked, "--budget", "bytes=0.7") == 0
    report = json.loads((here / "p.json").read_text())
    assert report["scope"] == "budget of 0.7 bytes" and report["totals"]["removed"] > 0
    assert run("prune", MODEL, *asked, "--sparsity", 0.5, "--scope", "erk", "--score", "variance") == 0
    assert json.loads((here / "p.json").read_text())["score"] == "variance"


MEASURED = """
import torch

def calibration():
    return [torch.ones(2, 3, 16, 16)], lambda model, batch: model(batch).square().mean()

def evaluate(model):
    return float((model[4].weight != 0).float().mean())

def nothing():
    return None
"""


def test_prune_takes_data_from_a_function(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "measured.py").write_text(MEASURED)
    asked = ("--pattern", "block:8x8", "--sparsity", 0.5, "-o", "w.safetensors", "--json", "p.json")
    assert run("prune", MODEL, *asked, "--score", "fisher", "--data", "measured:calibration") == 0
    assert json.loads((here / "p.json").read_text())["score"] == "fisher"
    assert run("prune", MODEL, *asked, "--solver", "obs", "--data", "measured:calibration") == 0
    told = json.loads((here / "p.json").read_text())
    assert told["solver"] == "obs" and told["layers"][-1]["output_errors"]["solver"] < 1
    assert run("prune", MODEL, *asked, "--solver", "obs") == 1
    assert "on the command line --data" in capsys.readouterr().err
    for name, why in (
        ("measured:nothing", "gave NoneType; expected (batches, loss)"),
        ("measured:other", "has no function 'other'"),
        ("measured", "expected --data PACKAGE.MODULE:FUNCTION"),
    ):
        assert run("prune", MODEL, *asked, "--score", "fisher", "--data", name) == 1
        assert why in capsys.readouterr().err


def test_prune_compares(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "measured.py").write_text(MEASURED)
    asked = ("--compare", "--pattern", "block:8x8,nm:2:4", "--sparsity", "0.5,0.75", "--score", "l1,taylor", "--target", "4")
    from_functions = ("--evaluate", "measured:evaluate", "--data", "measured:calibration")
    assert run("prune", MODEL, *asked, *from_functions, "--statistics", "--threads", 1, "--plot", "p.svg", "--json", "s.json") == 0
    printed = capsys.readouterr().out
    for expected in ("block:8x8", "taylor", "× dense", "left out: nm:2:4 at 0.75", "the dense network: accuracy 100.0%",
                     "drawn to p.svg", "what no other one beats, the slowest first: "):  # fmt: skip
        assert expected in printed
    rows = json.loads((here / "s.json").read_text())["rows"]
    assert [(row["pattern"], row["sparsity"], row["criterion"], row["accuracy"], row["speed"] is None) for row in rows] == [
        ("block:8x8", 0.5, "l1", 0.5, False), ("block:8x8", 0.5, "taylor", 0.5, True), ("block:8x8", 0.75, "l1", 0.25, False),
        ("block:8x8", 0.75, "taylor", 0.25, True), ("nm:2:4", 0.5, "l1", 0.5, False), ("nm:2:4", 0.5, "taylor", 0.5, True),
    ]  # fmt: skip
    assert (here / "p.svg").exists()
    assert run("prune", MODEL, "--compare", "--pattern", "block:8x8", "--sparsity", 0.5, "--permute", "--threads", 1) == 0
    printed = capsys.readouterr().out
    best = printed[printed.index("the slowest first: "):].splitlines()[0]
    assert "permuted" in printed and (" by l1" in best or "nothing but the dense network" in best)


def test_prune_permutes_first_if_asked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--pattern", "block:8x8", "-o", "w.safetensors", "--json", "p.json")
    assert run("prune", MODEL, *asked, "--sparsity", 0.5, "--permute") == 0
    assert "groups of channels moved" in capsys.readouterr().out
    report = json.loads((here / "p.json").read_text())
    assert report["permutation"]["kept"] > report["permutation"]["kept_before"]
    assert report["totals"]["l1_kept"] == pytest.approx(report["permutation"]["kept"], rel=1e-6)
    assert run("prune", MODEL, *asked, "--budget", "bytes=0.7", "--permute") == 2
    assert run("prune", MODEL, "--pattern", "nm:2:4", "--sparsity", 0.5, "--permute", "-o", "w.safetensors") == 1


def test_compile_writes_one_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compile", MODEL, "-o", "m.zlg", "--json", "c.json") == 0
    assert (here / "m.zlg").stat().st_size == 1000
    assert json.loads((here / "c.json").read_text())["file_bytes"] == 1000
    assert "written to m.zlg" in capsys.readouterr().out
    assert run("compile", MODEL, "-o", "m.txt") == 2


@pytest.mark.parametrize("output", ["y.npy", "y.npz"])
def test_run_takes_and_gives_arrays(here: Path, output: str) -> None:
    x = np.random.default_rng(0).standard_normal((1, 3, 16, 16), dtype=np.float32)
    np.save("x.npy", x)
    assert run("run", "m.zlg", "--input", "x.npy", "-o", output, "--json", "r.json") == 0
    found = np.load(output)
    y = found["output"] if output.endswith("npz") else found
    with torch.no_grad():
        assert np.array_equal(y, tiny_network()(torch.from_numpy(x)).numpy())
    assert json.loads(Path("r.json").read_text())["shapes"] == {"output": [1, 10]}


def test_run_names_nested_outputs(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"logits": np.ones(2), "features": [np.zeros(3), None, np.ones(4)]}
    monkeypatch.setitem(vars(zl), "load", lambda path, **settings: lambda *arrays: answer)
    np.save("x.npy", np.ones(1))
    assert run("run", "m.zlg", "--input", "x.npy", "-o", "y.npz") == 0
    found = np.load("y.npz", allow_pickle=False)  # None is left out: it could only be pickled
    assert {name: found[name].sum() for name in found.files} == {"output.logits": 2, "output.features.0": 0, "output.features.2": 4}
    assert run("run", "m.zlg", "--input", "x.npy", "-o", "y.npy") == 1
    assert not Path("y.npy").exists()


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit('pickles must not run')",))


def test_run_refuses_pickles_and_missing_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("x.npy", np.array([Payload()], dtype=object), allow_pickle=True)
    for name in ("x.npy", "nowhere.npy"):
        assert run("run", "m.zlg", "--input", name, "-o", "y.npy") == 1
        assert f"{name} can't be read" in capsys.readouterr().err


def test_bench_writes_the_comparison(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--pattern", "block:8x8", "--sparsity", 0.25, "--against", "torch", "--rounds", 1, "--threads", 1)
    assert run("bench", MODEL, *asked, "--json", "b.json") == 0
    result = json.loads((here / "b.json").read_text())
    assert result["model"] == MODEL and result["sparsity"] == 0.25 and result["pattern"] == "block:8x8"
    assert set(result["engines"]) == {"zellige", "zellige-dense", "torch"}
    assert "fastest dense engine (torch)" in capsys.readouterr().out


def test_bench_takes_a_network_as_it_is(here: Path) -> None:
    assert run("bench", MODEL, "--against", "torch", "--rounds", 1, "--json", "b.json") == 0
    result = json.loads((here / "b.json").read_text())
    assert set(result["engines"]) == {"zellige", "torch"} and result["sparsity"] == 0


def test_profile_takes_models_and_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for subject in (MODEL, "m.zlg"):
        assert run("profile", subject, "--json", "p.json") == 0
        assert "half is zero" in capsys.readouterr().out
        assert json.loads((here / "p.json").read_text())["rows"][0]["microseconds"] == 12.5


def test_verify_fails_when_the_error_is_too_large(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", MODEL, "--json", "v.json") == 0
    assert run("verify", MODEL, "--engine", "m.zlg") == 0
    assert run("verify", MODEL, "--tolerance", 1e-7, "--json", "v.json") == 1
    captured = capsys.readouterr()
    assert "off by 1.00e-06" in captured.err
    assert json.loads((here / "v.json").read_text())["max_relative_error"] == 1e-6


def test_doctor_knows_the_machine(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor", "--json", "d.json") == 0
    found = json.loads((here / "d.json").read_text())
    assert found["threads"] >= 1 and found["cpu"]["isa"] and found["versions"]["torch"]
    assert found["rivals"]["torch"] == "ready"
    out = capsys.readouterr().out
    assert "machine" in out and "the cost model's constants are the defaults" in out
    assert found["costs"]["band"].keys() == {"work", "weights", "maps", "call"} and found["costs"]["fit"] == {}


def test_doctor_keeps_what_it_fitted(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZELLIGE_CACHE", str(here / "cache"))
    fitted = Costs(band=Family(1.25, 0.5, 0.125, 1000.0))
    monkeypatch.setattr("zellige.cpu.calibrate.calibrate", lambda isa: Calibration(fitted, {"band": (40, 0.05)}))
    assert run("doctor", "--calibrate", "--json", "d.json") == 0
    out = capsys.readouterr().out
    assert "fitted to this machine" in out and "1.25" in out and "5.0%" in out
    found = json.loads((here / "d.json").read_text())["costs"]
    assert found["band"]["work"] == 1.25 and found["fit"] == {"band": [40, 0.05]}
    assert known_costs(host_isa()).costs == fitted
    (here / "cache").chmod(0o777)
    assert run("doctor", "--calibrate") == 1


def test_errors_are_one_line_and_status_one(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ("bench", "nothing"),
        ("bench", MODEL, "--against", "tensorflow"),
        ("prune", MODEL, "--pattern", "round:8", "--sparsity", 0.5, "-o", "w.safetensors"),
        ("prune", MODEL, "--pattern", "block:8x8", "--sparsity", 0.5, "-o", "no/such/place.safetensors"),
        ("prune", MODEL, "--pattern", "block:8x8", "--sparsity", 0.5, "--score", "taylor", "-o", "w.safetensors"),
        ("prune", MODEL, "--pattern", "block:8x8", "--sparsity", 0.5, "--scope", "sensitivity", "-o", "w.safetensors"),
        ("prune", MODEL, "--pattern", "block:8x8", "--budget", "bytes=2", "-o", "w.safetensors"),
        ("prune", MODEL, "--pattern", "block:8x8", "--budget", "joules=0.5", "-o", "w.safetensors"),
        ("compile", MODEL, "-o", "no/such/place.zlg"),
        ("doctor", "--json", "no/such/place.json"),
        ("verify", "m.zlg"),
        ("profile", MODEL, "--weights", "nowhere.safetensors"),
    ):
        assert run(*arguments) == 1
        captured = capsys.readouterr()
        assert captured.err.startswith("zellige: ") and captured.err.count("\n") == 1, captured.err
        assert "Traceback" not in captured.out


def test_wrong_usage_is_status_two(here: Path) -> None:
    for arguments in (
        ("no-such-verb",),
        ("bench",),
        ("bench", MODEL, "--pattern", "block:8x8"),
        ("bench", MODEL, "--sparsity", 0.5),
        ("bench", MODEL, "--shape", "3,big"),
        ("bench", MODEL, "--batch", 0),
        ("bench", MODEL, "--against", ""),
        ("bench", MODEL, "--against", " , "),
        ("profile", MODEL, "--scope", "global"),
        ("verify", MODEL, "--score", "l2"),
        ("prune", MODEL, "--pattern", "block:8x8", "--sparsity", 0.5, "-o", "w.pt"),
        ("run", "m.zlg", "--input", "x.npy", "-o", "y.txt"),
        ("prune", MODEL, "--pattern", "block:8x8", "-o", "w.safetensors"),
        ("prune", MODEL, "--pattern", "block:8x8", "--sparsity", 0.5, "--budget", "bytes=0.5", "-o", "w.safetensors"),
        ("prune", MODEL, "--pattern", "block:8x8", "--budget", "bytes", "-o", "w.safetensors"),
        ("prune", MODEL, "--pattern", "block:8x8", "--sparsity", 0.5),
        ("prune", MODEL, "--sparsity", 0.5, "-o", "w.safetensors"),
        ("prune", MODEL, "--pattern", "block:8x8", "--sparsity", "half", "-o", "w.safetensors"),
        ("prune", MODEL, "--pattern", "block:8x8", "--sparsity", 1.5, "-o", "w.safetensors"),
        ("prune", MODEL, "--pattern", "block:8x8", "--sparsity", "0.5,0.75", "-o", "w.safetensors"),
        ("prune", MODEL, "--pattern", "block:8x8", "--sparsity", 0.5, "-o", "w.safetensors", "--evaluate", "json:loads"),
        ("prune", MODEL, "--pattern", "block:8x8", "--sparsity", 0.5, "-o", "w.safetensors", "--statistics"),
        ("prune", MODEL, "--compare", "--statistics"),
        ("prune", MODEL, "--compare", "-o", "w.safetensors"),
        ("prune", MODEL, "--compare", "--budget", "bytes=0.5"),
        ("prune", MODEL, "--compare", "--pattern", "block:8x8,,channel"),
    ):
        assert run(*arguments) == 2


@pytest.mark.parametrize("verb", ["prune", "compile", "bench", "profile", "verify", "inspect", "codegen", "estimate"])
def test_places_are_looked_at_before_the_work(here: Path, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No model of this name can be made: whoever made one would say so first."""
    needed = {"prune": ("--pattern", "block:8x8", "--sparsity", 0.5, "-o", "w.safetensors"), "compile": ("-o", "m.zlg"),
              "codegen": ("-o", "code")}
    assert run(verb, "python:nowhere:build", *needed.get(verb, ()), "--json", "no/such/place.json") == 1
    assert "can't save to no/such/place.json: there is no directory no/such" in capsys.readouterr().err
    Path("place.json").mkdir()
    assert run(verb, "python:nowhere:build", *needed.get(verb, ()), "--json", "place.json") == 1
    assert "can't save to place.json: it is there and is not a file" in capsys.readouterr().err


def test_state_that_no_file_of_weights_holds_is_refused_before_the_work(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("with_extra.py").write_text(
        "from torch import nn, zeros\n"
        "class Extra(nn.Linear):\n"
        "    def get_extra_state(self): return {'steps': 3}\n"
        "def build(): return Extra(32, 32), (zeros(1, 32),)\n")
    Path("recipe.yaml").write_text("steps: 1\n")
    monkeypatch.setattr(zl, "prune", lambda *arguments, **options: pytest.fail("pruned"))
    monkeypatch.setattr(zl, "finetune", lambda *arguments, **options: pytest.fail("trained"))
    for verb in (("prune", "python:with_extra:build", "--pattern", "block:8x8", "--sparsity", 0.5),
                 ("finetune", "python:with_extra:build", "--recipe", "recipe.yaml", "--data", "digits")):
        assert run(*verb, "-o", "w.safetensors") == 1
        assert "has a dict under '_extra_state'" in capsys.readouterr().err


def test_every_verb_explains_itself_and_takes_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(VERBS) == {"prune", "finetune", "compile", "run", "bench", "profile", "verify", "inspect", "codegen", "simulate",
                          "estimate", "doctor", "demo"}
    for verb in VERBS:
        assert run(verb, "--help") == 0
        assert "--json" in capsys.readouterr().out
    assert run("--version") == 0
    assert capsys.readouterr().out.split() == ["zellige", zl.__version__]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for module in [name for name in sys.modules if name.startswith("zellige.cli.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "typer", None)
    assert run("doctor") == 1
    assert "pip install 'zellige[cli]'" in capsys.readouterr().err


def test_nothing_but_results_reaches_a_pipe(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", MODEL) == 0
    captured = capsys.readouterr()
    assert captured.err == "" and "\x1b" not in captured.out


def test_a_terminal_that_lacks_letters_gets_what_it_has(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    assert run("prune", MODEL, "--pattern", "block:8x8", "--sparsity", 0.5, "-o", "w.safetensors", "--target", "4") == 0
    assert b"32?16?3?3" in written.getvalue() and b"written to w.safetensors" in written.getvalue()


def test_running_a_file_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import zellige.cli.application, zellige.cli.doctor as d; d.processor()"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
