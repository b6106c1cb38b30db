"""Two runs on one GPU as one file."""

from __future__ import annotations

import pytest
from gpu_join import EARLIER, joined

CONDITIONS = {"gpu": "one", "torch": "2", "triton": "3", "cuda": "13"}


def layer(name: str, seconds: float, **more: str) -> dict[str, object]:
    return {"name": name, "rows": 1, "columns": 2, "mask": "m", "sparsity": 0.5, "seconds": seconds, **more}


def test_what_was_not_run_again_stays_and_says_so() -> None:
    before = {"conditions": CONDITIONS | {EARLIER: ["oldest"]}, "layers": [layer("a", 1), layer("b", 2, run="earlier")],
              "blocks": {"a": 1}, "oldest": 0, "linear": [1]}
    facts = {"conditions": CONDITIONS, "layers": [layer("a", 3), layer("c", 4)], "blocks": {"a": 3}}
    found = joined(before, facts)
    assert found["conditions"] == CONDITIONS | {EARLIER: ["oldest", "linear"]}
    assert found["layers"] == [layer("a", 3), layer("c", 4), layer("b", 2, run="earlier")]
    assert (found["blocks"], found["oldest"], found["linear"]) == ({"a": 3}, 0, [1])
    assert joined(before, {"conditions": CONDITIONS})["layers"] == [layer("a", 1, run="earlier"), layer("b", 2, run="earlier")]


def test_all_run_anew_is_one_run() -> None:
    before = {"conditions": CONDITIONS | {EARLIER: ["linear"]}, "layers": [layer("a", 1)], "linear": [1]}
    facts = {"conditions": CONDITIONS, "layers": [layer("a", 3)], "linear": [2]}
    assert joined(before, facts) == facts


@pytest.mark.parametrize("name", CONDITIONS)
def test_another_gpu_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} {CONDITIONS[name]}, now other"):
        joined({"conditions": CONDITIONS}, {"conditions": CONDITIONS | {name: "other"}})
