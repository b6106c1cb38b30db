"""What a captured graph reads must outlive it; seen here without a GPU, its graphs played by stand-ins."""

from __future__ import annotations

import contextlib
import weakref

import pytest
import torch

from zellige.cuda.layers.timing import Repeated


def test_what_a_graph_reads_stays_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: contextlib.nullcontext())
    read = torch.ones(3)
    alive = weakref.ref(read)
    repeated = Repeated([lambda read=read: read + 1])  # type: ignore[misc]
    del read
    assert alive() is not None
    del repeated
    assert alive() is None
