"""``zellige codegen``: a network becomes code for an array of AI Engines, with a sample to try it on."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from zellige.cli.arguments import Json, Model, PatternText, Scope, Score, Shape, Sparsity, Weights, creatable
from zellige.cli.network import NetworkChoice
from zellige.cli.overlay import Calibration, Data, Device, EngineTarget, OverlayChoice
from zellige.terminal import working, write_json

if TYPE_CHECKING:
    from zellige.graph.quantized import QuantizedGraph

INPUTS, OUTPUTS = "sample/inputs.npz", "sample/outputs.npz"
"""What the int8 reference was given and what it answered, by the names of the program's inputs and outputs."""

SCALES = "scales.json"
"""The real number that one step of an input or an output stands for."""


def codegen(
    model: Model,
    output: Annotated[Path, typer.Option("-o", "--output", callback=creatable, help="A new directory for the files.")],
    target: EngineTarget = "aie2:4x4",
    device: Device = "ve2802",
    weights: Weights = None,
    pattern: PatternText = None,
    sparsity: Sparsity = None,
    scope: Scope = "layer",
    score: Score = "l1",
    shape: Shape = None,
    calibration: Calibration = "mse",
    data: Data = None,
    json: Json = None,
) -> None:
    """Quantise MODEL to int8 and write the code that runs it on AI Engines: MLIR-AIE, C++ for the cores, weights, a manifest.

    No tool of AMD's has accepted that code. `zellige simulate` runs it.
    """
    from zellige.aie2.check import check
    from zellige.aie2.emit.files import DESIGN, check_directory, emit
    from zellige.aie2.lowering.lower import lower
    from zellige.graph.quantized_reference import run_int8

    check_directory(output)
    choice = OverlayChoice(target, device, calibration, data)
    on = choice.overlay
    network = NetworkChoice(model, weights, 1, shape, pattern, sparsity, scope, score)
    named = network.load()
    network.prune(named)
    started = time.perf_counter()
    batches = choice.batches(named)
    whole = choice.quantize(named, batches)
    sample = _in_steps(whole, batches[0])
    with working("generating code"):
        program = lower(whole, on)
        check(program, on.device)
        answers = run_int8(whole, sample, list(program.outputs))
        samples = {INPUTS: dict(zip(whole.inputs, sample, strict=True)), OUTPUTS: answers}
        scales = {name: float(whole.scales[name]) for name in (*whole.inputs, *program.outputs)}
        beside = {name: _packed(arrays) for name, arrays in samples.items()}
        manifest = emit(program, output, {**beside, SCALES: (dumps(scales, indent=1) + "\n").encode()})
    seconds = time.perf_counter() - started
    size = sum(entry.size for entry in manifest.files.values())
    write_json(json, {"model": named.name, "weights": named.weights, "pattern": pattern, "sparsity": sparsity, "overlay": str(on),
                      "directory": str(output), "bytes": size, "design_bytes": manifest.files[DESIGN].size,
                      "tasks": len(program.tasks), "scales": scales, "codegen_s": seconds})
    print(f"weights: {named.weights}")
    print(f"code for {on} in {seconds:.1f} s, written to {output} ({size / 1e6:.1f} MB, {len(program.tasks)} tasks)")


def _in_steps(whole: QuantizedGraph, inputs: Sequence[Any]) -> list[np.ndarray]:
    """A network's inputs in int8."""
    from zellige.api import input_arrays
    from zellige.graph.fixed_point import to_steps

    return [to_steps(value, whole.scales[name]) for name, value in zip(whole.inputs, input_arrays(inputs), strict=True)]


def _packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
