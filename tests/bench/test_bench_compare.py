"""The whole comparison around a stand-in engine: what is timed, what is refused, what the JSON holds."""

import copy
import json
from types import SimpleNamespace

import pytest
import torch
from stand_in import StandInEngine, tiny_network

import zellige as zl
from zellige.bench import compare as comparing
from zellige.bench import on_cpu
from zellige.bench.clock import Turn
from zellige.bench.compare import compare, compare_all
from zellige.bench.rivals import RIVALS, Rival, UnavailableRivalError
from zellige.bench.rivals.torch_eager import arrays_of
from zellige.bench.subject import Subject, as_it_is
from zellige.errors import BenchmarkError, VerificationError
from zellige.models import NamedModel

KEYS = {
    "model", "pattern", "sparsity", "dtype", "batch", "threads", "engines", "fastest_dense", "speedup_over_fastest",
    "speedup", "max_relative_error", "compile_s", "file_bytes", "dense_bytes", "layers", "conditions", "unavailable",
}  # fmt: skip


@pytest.fixture
def subject(monkeypatch: pytest.MonkeyPatch) -> Subject:
    """A dense network and a pruned one, engines that stand in for compiled ones, and rounds without pauses."""
    dense = tiny_network()
    pruned = copy.deepcopy(dense)
    with torch.no_grad():
        pruned[0].weight[:8] = 0
    monkeypatch.setitem(vars(zl), "compile", lambda model, inputs, **settings: StandInEngine(model))
    monkeypatch.setattr(comparing, "run_rounds", _without_pauses(comparing.run_rounds))
    return Subject("tiny", "block:8x8", 0.5, pruned, dense, (torch.randn(2, 3, 16, 16),), "random (seed 0)")


def _without_pauses(run_rounds):
    turn = Turn(idle_seconds=0, least_seconds=0)
    return lambda calls, rounds, _, after_round, lap: run_rounds(calls, rounds, turn, after_round, lap)


def test_the_result_holds_every_key_and_is_json(subject: Subject) -> None:
    found = compare(subject, threads=1, against=["torch"], rounds=3)
    plain = json.loads(found.to_json())
    assert plain.keys() >= KEYS
    assert plain["engines"].keys() == {"zellige", "zellige-dense", "torch"}
    assert all(one.keys() >= {"median_ms", "min_ms", "p99_ms"} for one in plain["engines"].values())
    assert plain["speedup"].keys() == {"zellige-dense", "torch"}
    assert plain["fastest_dense"] == "torch"
    assert plain["speedup_over_fastest"] == pytest.approx(plain["speedup"]["torch"])
    assert (plain["batch"], plain["threads"], plain["dtype"]) == (2, 1, "f32")
    assert plain["dense_bytes"] == 4 * sum(parameter.numel() for parameter in subject.dense.parameters())
    assert plain["file_bytes"] == 1000 and plain["compile_s"] == 0.25
    assert plain["layers"][0]["us"] == 12.5
    assert plain["conditions"]["weights"] == "random (seed 0)"
    assert plain["conditions"]["versions"]["torch"]


def test_the_text_names_every_engine_and_layer_with_its_reason(subject: Subject) -> None:
    text = str(compare(subject, threads=1, against=["torch"], rounds=3))
    for expected in ("zellige-dense", "torch", "band", "half is zero", "random (seed 0)", "fastest dense engine"):
        assert expected in text


def test_nothing_is_timed_when_our_answer_is_wrong(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(zl), "compile", lambda model, inputs, **settings: StandInEngine(model, 2e-4))
    monkeypatch.setattr(comparing, "run_rounds", lambda *_, **__: pytest.fail("a wrong engine was timed"))
    with pytest.raises(VerificationError, match="zellige is off by"):
        compare(subject, threads=1, against=["torch"])


def wrong(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...], threads: int) -> Rival:
    return Rival("wrong", "1", lambda: model(*inputs) * 1.01, arrays_of)


def refusing(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...], threads: int) -> Rival:
    raise UnavailableRivalError("it is Sunday")


def test_wrong_and_missing_rivals_do_not_count_and_are_named(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    rivals = {"torch": RIVALS["torch"], "wrong": wrong, "refusing": refusing}
    monkeypatch.setattr(on_cpu, "RIVALS", rivals)
    found = compare(subject, threads=1, rounds=2)
    assert set(found.contestants) == {"zellige", "zellige-dense", "torch"}
    assert "off by" in found.unavailable["wrong"] and found.unavailable["refusing"] == "it is Sunday"
    assert "it is Sunday" in str(found)
    for name in ("wrong", "refusing"):
        with pytest.raises(BenchmarkError, match=f"{name} can't take part"):
            compare(subject, threads=1, against=[name], rounds=2)


def test_without_rivals_there_is_no_speedup_over_them(subject: Subject) -> None:
    found = compare(subject, threads=1, against=[], rounds=2)
    assert found.over_fastest is None and found.fastest_dense is None
    assert json.loads(found.to_json())["speedup_over_fastest"] is None


def test_unknown_rivals_and_no_rounds_are_errors(subject: Subject) -> None:
    with pytest.raises(BenchmarkError, match=r"unknown rivals: tensorflow; known are onnxruntime"):
        compare(subject, against=["torch", "tensorflow"])
    with pytest.raises(BenchmarkError, match="at least one round"):
        compare(subject, rounds=0)


def test_prunings_of_one_network_share_rivals_and_rounds(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    monkeypatch.setitem(RIVALS, "torch", lambda *them, torch=RIVALS["torch"]: built.append(them) or torch(*them))
    dense = as_it_is(NamedModel("tiny", subject.dense, subject.inputs, "random (seed 0)", True))
    alone, half, again = compare_all([dense, subject, subject], threads=1, against=["torch"], rounds=3)
    assert len(built) == 1 and built[0][0] is subject.dense
    assert [one.sparsity for one in (alone, half, again)] == [0.0, 0.5, 0.5]
    assert set(alone.contestants) == {"zellige", "torch"}
    assert set(half.contestants) == {"zellige", "zellige-dense", "torch"}
    assert half.contestants["torch"].timing is alone.contestants["torch"].timing
    assert half.contestants["zellige-dense"].timing is alone.contestants["zellige"].timing
    assert half.contestants["zellige"].timing is not again.contestants["zellige"].timing
    assert half.over_fastest == half.speedups["torch"]


def test_only_one_network_is_compared_at_a_time(subject: Subject) -> None:
    other = as_it_is(NamedModel("other", tiny_network(), subject.inputs, "random (seed 0)", True))
    with pytest.raises(BenchmarkError, match="other: what is compared together must be one network"):
        compare_all([subject, other], threads=1, against=[], rounds=1)
    with pytest.raises(BenchmarkError, match="at least one network"):
        compare_all([], threads=1, against=[], rounds=1)


def test_a_network_taken_as_it_is_has_one_engine_of_ours(subject: Subject) -> None:
    named = NamedModel("tiny", subject.dense, subject.inputs, "trained", False)
    found = compare(as_it_is(named), threads=1, against=["torch"], rounds=2)
    assert set(found.contestants) == {"zellige", "torch"}


def test_settings_reach_the_compiler_and_torch_gets_its_threads_back(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = SimpleNamespace()

    def compile_it(model, inputs, **settings):
        asked.__dict__.update(settings)
        return StandInEngine(model)

    monkeypatch.setitem(vars(zl), "compile", compile_it)
    before = torch.get_num_threads()
    compare(subject, threads=before + 1, against=["torch"], rounds=1, winograd=False, tune="measure")
    assert vars(asked) == {
        "target": "cpu", "dtype": "f32", "threads": before + 1, "winograd": False, "tune": "measure",
    }  # fmt: skip
    assert torch.get_num_threads() == before
