"""Two processes hold the same masks, and together do what one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import STEPS, finetuned, replicated

from zellige.train.schemes import Gradual

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    directory = tmp_path_factory.mktemp("ranks")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    command = [*launcher, str(HERE / "processes.py"), str(directory)]
    path = os.pathsep.join([str(HERE), str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}, capture_output=True, text=True,
                          timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(directory / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("run", ["gradual", "regrow", "ste", "sharded", "finetune"])
def test_ranks_agree_to_the_bit(ranks: list[dict[str, Any]], run: str) -> None:
    first, second = (rank[run] for rank in ranks)
    assert first["masks"].keys() == second["masks"].keys()
    assert all(torch.equal(mask, second["masks"][name]) for name, mask in first["masks"].items())
    assert all(torch.equal(weight, second["weights"][name]) for name, weight in first["weights"].items())
    for name, mask in first["masks"].items():
        assert bool((first["weights"][name][~mask] == 0).all())


def test_two_processes_lose_what_one_loses(ranks: list[dict[str, Any]]) -> None:
    alone = replicated(Gradual(until=0.5, cuts=4), 0, 1)
    together = ranks[0]["gradual"]
    assert len(together["losses"]) == STEPS
    for one, two in zip(alone["losses"], together["losses"], strict=True):  # type: ignore[call-overload]
        assert abs(one - two) < 1e-5 * abs(one)
    assert all(torch.equal(mask, together["masks"][name]) for name, mask in alone["masks"].items())  # type: ignore[attr-defined]


def test_finetune_on_two_processes_loses_what_it_loses_on_one(ranks: list[dict[str, Any]]) -> None:
    alone, together = finetuned(), ranks[0]["finetune"]
    assert together["sparsity"] == alone["sparsity"] == 0.5 and together["accuracy"] == alone["accuracy"]
    assert len(together["losses"]) == len(alone["losses"])  # type: ignore[arg-type]
    pairs = [*zip(alone["losses"], together["losses"], strict=True), (alone["validation"], together["validation"])]  # type: ignore
    assert all(abs(one - two) < 1e-4 * abs(one) for one, two in pairs)
    assert all(torch.equal(mask, together["masks"][name]) for name, mask in alone["masks"].items())  # type: ignore[attr-defined]
    assert ranks[1]["finetune"]["losses"] == together["losses"]
