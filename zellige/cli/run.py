"""``zellige run``: arrays in, arrays out, without PyTorch."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from zellige.cli.arguments import Json, Threads, writable
from zellige.errors import ZelligeError
from zellige.pack.atomic import write_atomically
from zellige.terminal import write_json


def run(
    file: Annotated[Path, typer.Argument(metavar="FILE.zlg", help="A compiled network.", show_default=False)],
    inputs: Annotated[list[Path], typer.Option("--input", help="An input as .npy. Once per input, in order.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Where to write: .npy for one output, .npz for any.", callback=writable)
    ],
    threads: Threads = None,
    json: Json = None,
) -> None:
    """Run a compiled network once and write what it answers."""
    import zellige as zl

    if output.suffix not in (".npy", ".npz"):
        raise typer.BadParameter(f"expected a name that ends in .npy or .npz, got {output}", param_hint="-o")
    arrays = [_read(path) for path in inputs]
    engine = zl.load(file, threads=threads)
    outputs = dict(_flat(engine(*arrays), "output"))
    write_atomically(output, [_packed(outputs, output)])
    shapes = {name: list(array.shape) for name, array in outputs.items()}
    write_json(json, {"file": str(file), "output": str(output), "shapes": shapes})
    print("\n".join(f"{name}: {tuple(shape)}" for name, shape in shapes.items()))
    print(f"written to {output}")


def _read(path: Path) -> np.ndarray:
    if not path.is_file():
        raise ZelligeError(f"{path} can't be read: there is no such file")
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ZelligeError(f"{path} can't be read: expected an array of numbers, as numpy.save writes it") from error
    if not isinstance(array, np.ndarray):
        raise ZelligeError(f"{path} holds several arrays; expected one .npy file per input")
    return array


def _flat(answer: Any, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of an answer, each under a name that tells its place: ``output``, ``output.0``, ``output.logits``.

    A ``None`` of the model's is no array, and is left out.
    """
    if isinstance(answer, dict):
        for key, value in answer.items():
            yield from _flat(value, f"{name}.{key}")
    elif isinstance(answer, (tuple, list)):
        for index, value in enumerate(answer):
            yield from _flat(value, f"{name}.{index}")
    elif answer is not None:
        yield name, answer


def _packed(outputs: dict[str, np.ndarray], path: Path) -> bytes:
    buffer = io.BytesIO()
    if path.suffix == ".npz":
        np.savez(buffer, **outputs)  # type: ignore[arg-type]
    elif len(outputs) == 1:
        np.save(buffer, next(iter(outputs.values())), allow_pickle=False)
    else:
        raise ZelligeError(f"the network has {len(outputs)} outputs, {path} holds one: give a name that ends in .npz")
    return buffer.getvalue()
