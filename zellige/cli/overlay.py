"""From a verb's arguments to an overlay of AI Engines, and to the network in int8 that it runs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from zellige.errors import ZelligeError
from zellige.terminal import working

if TYPE_CHECKING:
    from zellige.aie2.overlay import Overlay
    from zellige.graph.quantized import QuantizedGraph
    from zellige.models import NamedModel

AIE2 = re.compile(r"aie2:([1-9][0-9]*)x([1-9][0-9]*)")

EngineTarget = Annotated[
    str, typer.Option("--target", metavar="aie2:ROWSxCOLUMNS", help="The rectangle of cores to use, such as aie2:4x4.")
]
Device = Annotated[str, typer.Option(help="The device that has them: paper, ve2802, ve2302, npu1 or npu2.")]
Calibration = Annotated[str, typer.Option(help="How scales of activations are chosen: mse, minmax or percentile.")]
Data = Annotated[
    str | None,
    typer.Option(metavar="PACKAGE.MODULE:FUNCTION", show_default="the model's example inputs",
                 help="A function of yours that gives batches, tuples of inputs, on which scales are calibrated."),
]


@dataclass(frozen=True)
class OverlayChoice:
    """Which cores, of which device; and how the network comes to int8."""

    target: str
    device: str
    calibration: str = "mse"
    data: str | None = None

    @property
    def overlay(self) -> Overlay:
        """The overlay. ``CompileError`` if the device has none of that size; wrong usage for another kind of target."""
        from zellige.aie2.device import device_named
        from zellige.aie2.overlay import overlay

        match = AIE2.fullmatch(self.target)
        if match is None:
            raise typer.BadParameter(f"expected rows and columns of cores such as aie2:4x4, got {self.target!r}",
                                     param_hint="--target")
        return overlay(device_named(self.device), int(match[1]), int(match[2]))

    def quantize(self, named: NamedModel) -> tuple[QuantizedGraph, list[np.ndarray]]:
        """The network in int8, with powers of two as scales, and the first inputs that it was calibrated on, in int8."""
        from zellige.api import optimized_graph
        from zellige.graph.fixed_point import to_steps
        from zellige.passes.quantize import quantize
        from zellige.passes.scales import Scheme

        with working("quantising"):
            graph = optimized_graph(named.model, named.example_inputs)
            batches = self._batches(named)
            whole = quantize(graph, batches, Scheme(self.calibration, powers_of_two=True, rows=8))
        return whole, [to_steps(value, whole.scales[name]) for name, value in zip(whole.inputs, batches[0], strict=True)]

    def _batches(self, named: NamedModel) -> list[list[np.ndarray]]:
        """Inputs to calibrate on, one batch at least. ``ZelligeError`` if the user's function gives something else."""
        import torch

        batches = [named.example_inputs]
        if self.data is not None:
            from zellige.models.functions import call_function, find_function

            made = call_function(find_function(self.data, "--data ", "mynet.data:function"), f"--data {self.data}")
            batches = list(made) if isinstance(made, Iterable) else []
            if not batches or not all(isinstance(batch, tuple) for batch in batches):
                raise ZelligeError(f"--data {self.data} gave {type(made).__name__}; expected batches, each a tuple of inputs")
        leaves = [torch.utils._pytree.tree_leaves(batch) for batch in batches]
        return [[np.asarray(torch.as_tensor(leaf).detach(), np.float32) for leaf in batch] for batch in leaves]
