"""``zl.estimate``: from a PyTorch model to what it should take."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import zellige as zl
from zellige.errors import CompileError


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(8, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1)).eval()


def test_a_model_is_estimated_and_left_as_it_was() -> None:
    model, x = network(), torch.randn(1, 8, 16, 16)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    whole = zl.estimate(model, (x,), target="aie2:2x2", device="paper")
    assert len(whole.phases) == 2 and whole.total_ms == pytest.approx(sum(map(whole.ms, whole.phases)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight[:, layer.in_channels // 2 :] = 0
    assert zl.estimate(model, (x,), target="aie2:2x2", device="paper", batches=[(x,), (2 * x,)]).total_ms < whole.total_ms


def test_dense_means_without_blocks_of_zeros() -> None:
    model, x = network(), torch.randn(1, 8, 32, 8)
    dense, sparse = (zl.estimate(model, (x,), target="aie2:1x1", device="npu1", dense=dense).total_ms for dense in (True, False))
    assert dense < sparse
    with torch.no_grad():
        model[2].weight[8:16, 16:24, 1, 1:] = 0
    with pytest.raises(CompileError, match="has 2 blocks of 8 × 8 weights that are all zero"):
        zl.estimate(model, (x,), target="aie2:1x1", device="npu1", dense=True)


@pytest.mark.parametrize("options, said", [
    ({"target": "cpu"}, "such as aie2:4x4, got 'cpu'"), ({"target": 4}, "got 4"), ({"device": "vck5000"}, "no AIE2 device"),
    ({"target": "aie2:9x9"}, "doesn't fit"), ({"batches": []}, "at least one batch"),
])  # fmt: skip
def test_what_cannot_be_estimated_is_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(zl.ZelligeError, match=said):
        zl.estimate(network(), (torch.randn(1, 8, 16, 16),), **options)  # type: ignore[arg-type]
