"""ncnn at its best on a CPU: Winograd and packed layouts on, f32 in storage and arithmetic.

The network comes through pnnx, which reads a traced TorchScript file. Its half-precision weights and ncnn's own fp16
and bf16 modes are switched off: the comparison is in f32. Winograd stays on, which makes ncnn the fastest dense engine
wherever 3×3 filters dominate. ncnn has no batch dimension: a batch runs sample after sample.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zellige.bench.rivals.rival import Inputs, Rival, UnavailableRivalError, contiguous_arrays

NAME = "ncnn"
OPTIONS = {
    "use_winograd_convolution": True,
    "use_winograd23_convolution": True,
    "use_winograd43_convolution": True,
    "use_winograd63_convolution": True,
    "use_sgemm_convolution": True,
    "use_packing_layout": True,
    "use_fp16_packed": False,
    "use_fp16_storage": False,
    "use_fp16_arithmetic": False,
    "use_bf16_packed": False,
    "use_bf16_storage": False,
    "use_vulkan_compute": False,
    "lightmode": True,
}
CONVERSION_SECONDS = 300


def build(model: torch.nn.Module, inputs: Inputs, threads: int) -> Rival:
    """Trace the network, convert it with pnnx and load it."""
    try:
        import ncnn
        import pnnx
    except ImportError as error:
        raise UnavailableRivalError("ncnn or pnnx is not installed: pip install 'zellige[bench]'") from error
    samples = _samples(inputs)
    net = ncnn.Net()
    for option, value in OPTIONS.items():
        setattr(net.opt, option, value)
    net.opt.num_threads = threads
    with tempfile.TemporaryDirectory(prefix="zellige-ncnn-") as directory:
        param, weights = _convert(model, tuple(tensor[:1] for tensor in inputs), Path(directory), pnnx.EXEC_PATH)
        if net.load_param(str(param)) != 0 or net.load_model(str(weights)) != 0:
            raise UnavailableRivalError("ncnn can't load what pnnx made of it: a layer that ncnn does not know")
    names, output_names = net.input_names(), net.output_names()
    feeds = [[(name, ncnn.Mat(array)) for name, array in zip(names, sample, strict=True)] for sample in samples]

    def call() -> list[list[Any]]:
        answers = []
        for feed in feeds:
            extractor = net.create_extractor()
            for name, matrix in feed:
                extractor.input(name, matrix)
            answers.append([extractor.extract(name) for name in output_names])
        return answers

    def outputs(answer: Any) -> tuple[np.ndarray, ...]:
        for sample in answer:
            if any(code != 0 for code, _ in sample):
                raise UnavailableRivalError("ncnn failed while running the network")
        by_output = zip(*answer, strict=True)
        return tuple(np.stack([np.array(matrix) for _, matrix in column]) for column in by_output)

    settings = {**OPTIONS, "num_threads": threads, "batch": "sample after sample"}
    return Rival(NAME, importlib.metadata.version("ncnn"), call, outputs, settings)


def _samples(inputs: Inputs) -> list[list[np.ndarray]]:
    """Per sample of the batch, the inputs without their batch dimension."""
    arrays = contiguous_arrays(inputs)
    if len({array.shape[0] for array in arrays}) != 1:
        raise UnavailableRivalError("ncnn has no batch dimension, and the inputs do not share one that could be split")
    return [[np.ascontiguousarray(array[index]) for array in arrays] for index in range(arrays[0].shape[0])]


def _convert(model: torch.nn.Module, inputs: Inputs, directory: Path, program: str) -> tuple[Path, Path]:
    """Trace the network on one sample and run pnnx on the file; returns ncnn's structure and weights."""
    traced_file = directory / "model.pt"
    with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            torch.jit.trace(model, inputs, check_trace=False).save(str(traced_file))
        except (RuntimeError, ValueError, TypeError) as error:
            raise UnavailableRivalError(f"the network can't be traced: {str(error).splitlines()[0]}") from error
    shapes = ",".join(f"[{','.join(map(str, tensor.shape))}]f32" for tensor in inputs)
    command = [program, str(traced_file), f"inputshape={shapes}", "fp16=0"]
    try:
        finished = subprocess.run(
            command, cwd=directory, capture_output=True, text=True, timeout=CONVERSION_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableRivalError(f"pnnx took more than {CONVERSION_SECONDS} s to convert the network") from error
    param, weights = directory / "model.ncnn.param", directory / "model.ncnn.bin"
    if finished.returncode != 0 or not param.exists() or not weights.exists():
        said = (finished.stderr or finished.stdout).strip().splitlines()
        raise UnavailableRivalError(f"pnnx can't convert the network: {said[-1] if said else finished.returncode}")
    return param, weights
