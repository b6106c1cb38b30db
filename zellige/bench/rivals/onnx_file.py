"""A network as an ONNX file, for the rivals that read one.

PyTorch's exporter through ``torch.export`` is tried first; networks that it refuses go through the older one, which
traces.
"""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import torch

from zellige.bench.rivals.rival import Inputs, UnavailableRivalError

OPSET = 18


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters print and warn about their own progress; a benchmark has no use for that."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _export(model: torch.nn.Module, inputs: Inputs, path: Path, dynamo: bool) -> None:
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            model, inputs, str(path), dynamo=dynamo, opset_version=OPSET, verbose=False, external_data=dynamo
        )


@contextmanager
def onnx_file(model: torch.nn.Module, inputs: Inputs) -> Iterator[Path]:
    """The network as an ONNX file with fixed shapes, in a directory that is gone afterwards.

    Raises :class:`UnavailableRivalError` where neither exporter takes the network.
    """
    with tempfile.TemporaryDirectory(prefix="zellige-onnx-") as directory:
        path = Path(directory, "model.onnx")
        try:
            _export(model, inputs, path, dynamo=True)
        except (ImportError, RuntimeError, ValueError, TypeError) as first:
            try:
                _export(model, inputs, path, dynamo=False)
            except (ImportError, RuntimeError, ValueError, TypeError) as second:
                raise UnavailableRivalError(
                    f"the network can't be exported to ONNX: {_first_line(first)}; traced: {_first_line(second)}"
                ) from second
        yield path


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
