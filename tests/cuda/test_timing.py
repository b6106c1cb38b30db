"""What a captured graph reads must outlive it; seen here without a GPU, its graphs played by stand-ins."""

from __future__ import annotations

import contextlib
import weakref

import pytest
import torch

from zellige.cuda.layers.timing import Repeated
from zellige.cuda.network.capture import recording


def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The modes of captures, as they are asked for."""
    modes: list[str] = []

    def graph(graph: object, capture_error_mode: str = "global") -> contextlib.AbstractContextManager[None]:
        modes.append(capture_error_mode)
        return contextlib.nullcontext()

    for name, value in {"synchronize": lambda: None, "CUDAGraph": object, "graph": graph, "Stream": Stream,
                        "device": lambda _: contextlib.nullcontext(), "stream": lambda _: contextlib.nullcontext(),
                        "current_stream": Stream}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return modes


class Stream:
    def wait_stream(self, other: object) -> None:
        pass


def test_other_threads_do_not_end_a_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    modes = stand_in(monkeypatch)
    Repeated([lambda: torch.ones(1)])
    with recording(lambda x: (x,), [torch.ones(1)]):
        pass
    assert modes == ["thread_local"] * 2


def test_what_a_graph_reads_stays_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    read = torch.ones(3)
    alive = weakref.ref(read)
    repeated = Repeated([lambda read=read: read + 1])  # type: ignore[misc]
    del read
    assert alive() is not None
    del repeated
    assert alive() is None
