"""Choices are shared only by what takes the same time: rows written alike, tiles alike in number and length, kernels of today."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zellige.cuda.layers import choosing, keys
from zellige.cuda.network import prices
from zellige.cuda.network.layers import TOKENS, Linear
from zellige.cuda.network.prices import MeasuredPrices
from zellige.cuda.tiling.tiles import cut_tiles

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr(prices, "TILE", 16)
    monkeypatch.setattr(prices, "STEP", 16)


def half_of_the_rows(together: bool) -> np.ndarray:
    """64 × 64, of which 32 rows are gone: eights side by side, or every other one."""
    rows = np.arange(64)
    return (((rows // 8 if together else rows) % 2 == 0)[:, None] * np.ones((64, 64))).astype(np.float32)


def bands(lengths: tuple[int, ...]) -> np.ndarray:
    """Bands of 16 rows that keep so many columns each."""
    return np.repeat([np.arange(64) < length for length in lengths], 16, axis=0).astype(np.float32)


EVEN, UNEVEN = bands((32, 32, 32, 32)), bands((64, 32, 16, 16))


def key_alone(weight: np.ndarray) -> str:
    cuts = {way: cut_tiles(weight, 16, group, 16) for way, group in choosing.groups(16).items()}
    return choosing.key_of(torch.from_numpy(weight).half(), 16, 16, cuts, 8)


def key_in_a_network(weight: np.ndarray) -> str:
    layer = Linear(("layer",), (torch.from_numpy(weight),), None, "none", weight.size)
    return MeasuredPrices(CPU, torch.float16)._key(layer, 8, False, (TOKENS, TOKENS))


@pytest.mark.parametrize("key", [key_alone, key_in_a_network])
@pytest.mark.parametrize("one, other", [(half_of_the_rows(True), half_of_the_rows(False)), (EVEN, UNEVEN)])
def test_work_that_differs_has_another_key(key, one: np.ndarray, other: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    assert cut_tiles(one, 16, 16, 16).steps == cut_tiles(other, 16, 16, 16).steps
    assert key(one) == key(one.copy()) and key(one) != key(other)


@pytest.mark.parametrize("key", [key_alone, key_in_a_network])
def test_other_kernels_have_other_keys(key, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    before = key(EVEN)
    monkeypatch.setattr(keys, "digest_of_sources", lambda: "changed")
    changed = key(EVEN)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 1)
    assert len({before, changed, key(EVEN)}) == 3


def test_the_digest_is_of_every_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaving out one kind of file, or one folder, gives another."""
    digests = set()
    for name, values in (("SUFFIXES", (".py", ".cu", ".cuh")), ("SUFFIXES", (".py", ".cu")), ("SUFFIXES", (".py", ".cuh")),
                         ("SOURCES", ("kernels",)), ("SOURCES", ("kernels", "operators"))):
        with monkeypatch.context() as patch:
            patch.setattr(keys, name, values)
            digests.add(keys.digest_of_sources.__wrapped__())
    assert len(digests) == 5
