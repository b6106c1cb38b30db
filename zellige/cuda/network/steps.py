"""The steps of a network one by one, each timed in its place.

The lowered graph is captured once more, with an event behind every step. Events of this kind are nodes of the CUDA graph
(``cudaEventRecordExternal``), so replaying it tells what each step took between its neighbours, with what they left in the caches,
and without any launch from the host. An event itself costs about a microsecond, which counts to the step before it, and no two
steps overlap: together they take a little more than the network does without events.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from zellige.cuda.network.capture import recording

host_clock: Callable[[], float] = time.perf_counter


class Steps(fx.Interpreter):
    """Runs a graph and calls ``after`` behind every node that makes something. Views make nothing; whatever a node that is none
    needs of them counts to it."""

    def __init__(self, module: fx.GraphModule, after: Callable[[fx.Node], None]) -> None:
        super().__init__(module)
        self.after = after

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op.startswith("call_") and not _memory([result]) <= _memory([self.env[node] for node in n.all_input_nodes]):
            self.after(n)
        return result


class CapturedSteps:
    """Steps on a GPU. ``inputs`` are what they read; all that a replay reads stays alive as long as this does."""

    def __init__(self, module: fx.GraphModule, inputs: Sequence[torch.Tensor]) -> None:
        self.module, self.inputs = module, tuple(inputs)
        self.device, self.stamps = self.inputs[0].device, list[tuple[fx.Node, torch.cuda.Event]]()
        with recording(module, self.inputs) as self.graph:
            self.start = _recorded()
            self.results = Steps(module, lambda node: self.stamps.append((node, _recorded()))).run(*self.inputs)

    def replay(self) -> dict[fx.Node, float]:
        """The seconds of every step, in the order in which they ran."""
        with torch.cuda.device(self.device):
            self.graph.replay()
            torch.cuda.synchronize()
        events = [self.start, *(event for _, event in self.stamps)]
        return {node: before.elapsed_time(event) * 1e-3 for (node, event), before in zip(self.stamps, events, strict=False)}


class DirectSteps:
    """The same without a graph, by the host's clock: where there is no GPU, in tests."""

    def __init__(self, module: fx.GraphModule, inputs: Sequence[torch.Tensor]) -> None:
        self.module, self.inputs = module, tuple(inputs)

    def replay(self) -> dict[fx.Node, float]:
        found: dict[fx.Node, float] = {}
        stamps = [host_clock()]

        def stamp(node: fx.Node) -> None:
            stamps.append(host_clock())
            found[node] = stamps[-1] - stamps[-2]

        with torch.no_grad():
            Steps(self.module, stamp).run(*self.inputs)
        return found


def _recorded() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True, external=True)
    event.record()
    return event


def _memory(values: Sequence[Any]) -> set[int]:
    """Where the tensors among the values lie."""
    return {leaf.untyped_storage().data_ptr() for leaf in pytree.tree_leaves(values) if isinstance(leaf, torch.Tensor)}
