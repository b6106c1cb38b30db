"""From a verb's arguments to an overlay of AI Engines, and to the network in int8 that it runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zellige.errors import ZelligeError
from zellige.terminal import working

if TYPE_CHECKING:
    from zellige.aie2.overlay import Overlay
    from zellige.graph.quantized import QuantizedGraph
    from zellige.models import NamedModel

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
        from zellige.aie2.overlay import TARGET, overlay_of

        if TARGET.fullmatch(self.target) is None:
            raise typer.BadParameter(f"expected rows and columns of cores such as aie2:4x4, got {self.target!r}",
                                     param_hint="--target")
        return overlay_of(self.target, self.device)

    def quantize(self, named: NamedModel, batches: Sequence[Sequence[Any]]) -> QuantizedGraph:
        """The network in int8, with powers of two as scales, calibrated on batches of inputs."""
        from zellige.api import quantized_graph

        with working("quantising"):
            return quantized_graph(named.model, named.example_inputs, batches, self.calibration)

    def batches(self, named: NamedModel) -> list[Sequence[Any]]:
        """Inputs to calibrate on, one batch at least. ``ZelligeError`` if the user's function gives something else."""
        batches: list[Sequence[Any]] = [named.example_inputs]
        if self.data is not None:
            from zellige.models.functions import call_function, find_function

            made = call_function(find_function(self.data, "--data ", "mynet.data:function"), f"--data {self.data}")
            batches = list(made) if isinstance(made, Iterable) else []
            if not batches or not all(isinstance(batch, tuple) for batch in batches):
                raise ZelligeError(f"--data {self.data} gave {type(made).__name__}; expected batches, each a tuple of inputs")
        return batches
