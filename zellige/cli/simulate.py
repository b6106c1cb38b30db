"""``zellige simulate``: emitted code for AI Engines, run from its files alone."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from zipfile import BadZipFile

import numpy as np
import typer

from zellige.cli.arguments import Json, writable
from zellige.cli.codegen import INPUTS, OUTPUTS
from zellige.errors import FileFormatError, InputError, VerificationError
from zellige.pack.atomic import write_atomically
from zellige.terminal import working, write_json

if TYPE_CHECKING:
    from zellige.aie2.program import Program
    from zellige.aie2.step import StepFunction

Arrays = dict[str, np.ndarray]


def simulate(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="What zellige codegen wrote.", show_default=False)],
    inputs: Annotated[
        Path | None,
        typer.Option("--input", help="Inputs in int8, by name: an .npz file.", show_default="the sample that the code came with"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", callback=writable, help="Where to write outputs in int8: an .npz file.",
                                  show_default=False)
    ] = None,
    kernel: Annotated[str, typer.Option(help="What runs the cores' kernel: compiled (its C++, by g++) or numpy.")] = "compiled",
    json: Json = None,
) -> None:
    """Run the code in DIR, every transfer, lock and kernel of it, and estimate its time.

    On the sample that it came with, what it answers must be that of the int8 reference, bit for bit.
    """
    from zellige.aie2.check import check
    from zellige.aie2.cycles import step_cycles
    from zellige.aie2.device import device_named
    from zellige.aie2.emit.files import read
    from zellige.aie2.simulate import simulate as run

    with working("reading"):
        program = read(directory)
        check(program)
    given = read_arrays(directory / INPUTS if inputs is None else inputs)
    device, step = device_named(program.device), _step(kernel, directory)
    started = time.perf_counter()
    with working("simulating"):
        done = run(program, _host(program, given), step, lambda packet: step_cycles(packet, device))
    seconds = time.perf_counter() - started
    answers = _answers(program, done.host)
    if output is not None:
        buffer = io.BytesIO()
        np.savez(buffer, **answers)  # type: ignore[arg-type]
        write_atomically(output, [buffer.getvalue()])
    if inputs is None:
        _compare(answers, read_arrays(directory / OUTPUTS), directory)
    milliseconds = done.cycles / device.clock * 1e3
    write_json(json, {"program": program.name, "device": program.device, "cycles": done.cycles, "ms": milliseconds,
                      "equal_to_reference": True if inputs is None else None, "simulate_s": seconds})
    print(f"{program.name} on {program.device}: {milliseconds:.3f} ms estimated ({done.cycles:.0f} cycles), "
          f"simulated in {seconds:.1f} s")
    if inputs is None:
        print("outputs equal those of the int8 reference, bit for bit")


def _step(kernel: str, directory: Path) -> StepFunction:
    from zellige.aie2.compiled import KERNELS, compiled_step
    from zellige.aie2.step import step

    if kernel == "numpy":
        return step
    if kernel != "compiled":
        raise typer.BadParameter(f"expected compiled or numpy, got {kernel!r}", param_hint="--kernel")
    return compiled_step(directory / KERNELS.name)


def read_arrays(path: Path) -> Arrays:
    """Arrays of numbers by name. Raises ``FileFormatError`` for a file without."""
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except OSError as error:
        raise FileFormatError(f"{path}: expected arrays by name, as numpy.savez writes them: {error.strerror or error}") from None
    except (ValueError, EOFError, AttributeError, BadZipFile):  # NumPy's own words give advice that helps nobody here
        raise FileFormatError(f"{path}: expected arrays of numbers by name, as numpy.savez writes them, got another file") from None


def _host(program: Program, given: Arrays) -> Arrays:
    """What host buffers hold when inputs have been written into them."""
    from zellige.aie2.tensor import host_value

    expected = {name: host_value(text) for name, text in program.inputs.items()}
    came = {name: (array.dtype.name, array.shape) for name, array in given.items()}
    if came != {name: ("int8", value.shape) for name, value in expected.items()}:
        shapes = ", ".join(f"{name}: int8 {value.shape}" for name, value in expected.items())
        raise InputError(f"{program.name} expects {shapes}; got {came}")
    found: Arrays = {}
    for name, value in expected.items():
        held = next(one for one in program.host if one.name == value.buffer)
        start = np.zeros(held.size, np.int8) if held.data is None else held.data.view(np.int8).copy()
        value.write(found.setdefault(value.buffer, start), given[name])
    return found


def _answers(program: Program, host: Mapping[str, np.ndarray]) -> Arrays:
    from zellige.aie2.tensor import host_value

    values = {name: host_value(text) for name, text in program.outputs.items()}
    return {name: value.read(host[value.buffer].view(np.int8)) for name, value in values.items()}


def _compare(answers: Arrays, expected: Arrays, directory: Path) -> None:
    for name, array in answers.items():
        if name not in expected or expected[name].shape != array.shape:
            raise FileFormatError(f"{directory / OUTPUTS}: expected an array {name} of shape {array.shape}")
        if wrong := int(np.count_nonzero(expected[name] != array)):
            raise VerificationError(f"{directory}: {wrong} of {array.size} values of {name} aren't those of the int8 reference")
