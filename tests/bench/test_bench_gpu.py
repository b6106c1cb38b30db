"""Comparisons on a GPU, around stand-ins: rivals, a clock and an engine without one."""

import json

import pytest
import torch
from stand_in import StandInEngine, tiny_network

import zellige as zl
from zellige.bench import compare as comparing
from zellige.bench import on_gpu
from zellige.bench.clock import Turn, run_rounds
from zellige.bench.compare import compare
from zellige.bench.on_gpu import driver
from zellige.bench.rivals import Rival, cuda_eager
from zellige.bench.rivals.torch_eager import arrays_of
from zellige.bench.subject import Subject, as_it_is
from zellige.cuda.network.capture import Direct
from zellige.errors import BenchmarkError, CompileError, VerificationError
from zellige.models import NamedModel

CPU = torch.device("cpu")


class ShortEngine(StandInEngine):
    """Tensors in a short type come and go, as with an engine on a GPU; nothing can be saved."""

    def __call__(self, *inputs):
        assert all(x.dtype == torch.bfloat16 for x in inputs)
        with torch.no_grad():
            answer = self.model(*(x.float() for x in inputs))
        return (answer + self.error * answer.abs().max()).bfloat16()

    def save(self, path):
        pytest.fail("an engine for a GPU was saved")


def rival(name, factor=1.0):
    def build(model, inputs, dtype):
        with torch.no_grad():
            answer = (model(*inputs) * factor).to(dtype)
        return Rival(name, "1", lambda: answer, arrays_of, {"dtype": str(dtype)})

    return build


@pytest.fixture
def subject(monkeypatch: pytest.MonkeyPatch) -> Subject:
    monkeypatch.setattr(on_gpu, "check_gpu", lambda *_: (CPU, torch.bfloat16))
    monkeypatch.setattr(on_gpu, "GPU_RIVALS", {"torch": rival("torch"), "torch-compile": rival("torch-compile")})
    monkeypatch.setitem(vars(zl), "compile", lambda model, inputs, **settings: ShortEngine(model))
    told = by_milliseconds(torch=[4.0, 6.0, 9.0], compiled=[5.0, 5.0, 5.0], ours=[2.0, 2.5, 5.0])
    monkeypatch.setattr(comparing, "run_rounds", told)
    return as_it_is(NamedModel("tiny", tiny_network(), (torch.randn(2, 3, 16, 16),), "random (seed 0)", True))


def by_milliseconds(**spans):
    """``run_rounds`` of which a lap is what it is told; calls are made."""

    def timed(calls, rounds, turn, after_round, lap):
        assert lap is on_gpu.device_lap and turn.idle_seconds == 0
        names = {id(call): {"torch": "torch", "torch-compile": "compiled"}.get(name, "ours") for name, call in calls.items()}
        queues = {id(call): iter(spans[names[id(call)]]) for call in calls.values()}

        def lap_of(call):
            call()
            return next(queues[id(call)])

        return run_rounds(calls, rounds, Turn(0.0, 0, 1, 0.0, 1), after_round, lap_of)

    return timed


def test_medians_of_ratios_to_the_fastest_of_each_round(subject: Subject) -> None:
    plain = json.loads(compare(subject, target="cuda", rounds=3).to_json())
    assert plain["engines"].keys() == {"zellige", "torch", "torch-compile"}
    assert plain["speedup_over_fastest"] == 2.0  # of 4/2, 5/2.5 and 5/5
    assert plain["speedup_over_fastest_quartiles"] == [1.5, 2.0]
    assert plain["dtype"] == "bf16" and plain["threads"] is None and plain["file_bytes"] is None
    assert 0 < plain["torch_bf16_relative_error"] < 3e-2 and plain["max_relative_error"] < 3e-2
    assert plain["engines"]["zellige"]["settings"] == {"target": "cuda", "dtype": "bf16"}
    assert plain["conditions"]["gpu"] and "cpu" not in plain["conditions"]


def test_the_text_has_no_file_and_no_threads(subject: Subject) -> None:
    text = str(compare(subject, target="cuda", rounds=3))
    assert "file" not in text and "thread" not in text and "bf16" in text and "fastest dense engine" in text


def test_wrong_answers_are_not_timed(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(on_gpu.GPU_RIVALS, "torch-compile", rival("torch-compile", 1.2))
    found = compare(subject, target="cuda", rounds=2)
    assert "off by" in found.unavailable["torch-compile"]
    monkeypatch.setitem(vars(zl), "compile", lambda model, inputs, **settings: ShortEngine(model, 0.2))
    with pytest.raises(VerificationError, match="in bf16"):
        compare(subject, target="cuda", rounds=2)


def test_rivals_of_cpus_are_unknown_here(subject: Subject) -> None:
    with pytest.raises(BenchmarkError, match="unknown rivals: openvino; known are torch, torch-compile"):
        compare(subject, target="cuda", against=["openvino"])


@pytest.mark.parametrize("options, said", [
    ({"threads": 2}, "threads is an option of CPUs"), ({"dtype": "f32"}, "bf16, f16"), ({"tune": "measure"}, "tune"),
    ({"winograd": False}, "winograd"),
])
def test_options_that_a_gpu_does_not_have(options: dict, said: str) -> None:
    with pytest.raises(CompileError, match=said):
        compare(None, target="cuda", **options)  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_nothing_is_done() -> None:
    with pytest.raises(CompileError, match="needs an NVIDIA GPU"):
        compare(None, target="cuda")  # type: ignore[arg-type]


def test_captured_rival(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's operators, without a graph: both layouts are tried, the faster one is kept, results are the network's."""
    model, x = tiny_network(), torch.randn(2, 3, 16, 16)
    laps = iter([2.0, 1.0])
    monkeypatch.setattr(cuda_eager, "Captured", Direct)
    monkeypatch.setattr(cuda_eager, "device_lap", lambda call: next(laps))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch, "device", lambda *_: CPU)
    found = cuda_eager.build(model, (x,), torch.bfloat16)
    assert found.settings["layout"] == "channels_last" and found.settings["dtype"] == "torch.bfloat16"
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found.answer()[0]), model(x), atol=3e-2, rtol=3e-2)
    assert next(model.parameters()).dtype == torch.float32


def test_the_driver_names_itself(tmp_path) -> None:
    file = tmp_path / "version"
    file.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release\nGCC version:  12.3.0\n")
    assert driver(file) == "580.95.05" and driver(tmp_path / "none") is None
