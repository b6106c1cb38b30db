"""What is timed of products in e4m3, as far as that goes without a GPU, and the table that comes of it."""

import copy
import json
from pathlib import Path

import gpu_fp8
import gpu_page
import pytest
import torch

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
CPU = torch.device("cpu")


class Once:
    """In place of calls in a graph."""

    def __init__(self, calls) -> None:
        self.results = [call() for call in calls]


def test_roundings_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """All three ways make the same numbers: the scale that is known is that of the input, a power of two."""
    made = {}
    monkeypatch.setattr(gpu_fp8, "DEVICE", CPU)
    monkeypatch.setattr(gpu_fp8, "TOKENS", 8)
    monkeypatch.setattr(gpu_fp8, "ROTATED", 1)
    monkeypatch.setattr(gpu_fp8, "Repeated", Once)
    monkeypatch.setattr(gpu_fp8, "race", lambda ready, rounds: made.update(ready) or {name: [2e-6, 1e-6, 4e-6] for name in ready})
    found = gpu_fp8.time_rounding(32, 1e9)
    assert found["seconds"] == {"found": 2e-6, "known": 2e-6, "operators": 2e-6}
    assert found["floor_s"] == pytest.approx({"found": 5 * 256e-9, "known": 3 * 256e-9, "operators": 5 * 256e-9})
    first, *others = (once.results for once in made.values())
    assert len(first) == 2 and first[0].dtype == torch.float8_e4m3fn and first[0].shape == (8, 32)
    assert all(torch.equal(a.float(), b.float()) for other in others for a, b in zip(first, other, strict=True))


def test_wrong_roundings_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_fp8, "DEVICE", CPU)
    monkeypatch.setattr(gpu_fp8, "SHAPES", [(1, 5 + number, 3) for number in range(10)])
    assert gpu_fp8.wrong_roundings() == []
    right, calls = gpu_fp8.to_e4m3, []

    def every_other_time(x):  # on the CPU, then on the device
        calls.append(x)
        small, scale = right(x)
        return small, scale * (1 + len(calls) % 2)

    monkeypatch.setattr(gpu_fp8, "to_e4m3", every_other_time)
    assert len(gpu_fp8.wrong_roundings()) == 12  # twice NaN is NaN, twice infinity infinity


def test_the_table() -> None:
    """Of a file that has no layers whose scale is known and no roundings, and of one that has."""
    facts = json.loads((RESULTS / "gpu-h100.json").read_text())
    facts["fp8"]["layers"] = [{key: {name: value for name, value in values.items() if "known" not in name}
                               if isinstance(values, dict) else values for key, values in layer.items()}
                              for layer in facts["fp8"]["layers"]]
    facts["fp8"].pop("roundings", None)
    before = gpu_page.fp8(facts)
    assert "layer, 75%" in before and "known" not in before and "to_e4m3" not in before

    facts = copy.deepcopy(facts)
    for layer in facts["fp8"]["layers"]:
        layer["seconds"]["layer-e4m3-known"] = layer["seconds"]["cublas-bf16"] / 4
        layer["errors"]["layer-e4m3-known"] = 0.0
    facts["fp8"]["roundings"] = [{"columns": 4096, "seconds": {"found": 4e-5, "known": 2e-5, "operators": 1e-4},
                                  "floor_s": {"found": 3e-5, "known": 1e-5, "operators": 3e-5}}]
    facts["fp8"]["correctness"]["wrong roundings"] = ["one"]
    after = gpu_page.fp8(facts)
    assert "layer, scale known, 75%" in after and after.count("4.00×") == 9
    facts["fp8 correctness"] = {"cases": 7, "worst": "2e-3", "wrong": ["one"], "wrong roundings": [], "jobs left undone": 2}
    own = gpu_page.fp8(facts)
    assert "7 products of awkward shapes, 1 of them wrong, 2 more not checked" in own and "0 awkward inputs" in own
    assert "| 4096 × 4096 | 100 (30%) | 40 (75%) | 20 (50%) |" in after and "1 awkward inputs were rounded wrong" in after
