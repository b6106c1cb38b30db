"""PyTorch through ``torch.compile`` (Inductor), weights frozen.

Freezing lets Inductor fold batch norms and pre-pack weights for oneDNN, which is what makes it faster than eager mode
on a CPU. It generates C++, so it needs a compiler on the machine.
"""

from __future__ import annotations

import copy
import logging
import os
import shutil
import warnings

import torch

from zellige.bench.rivals.rival import Inputs, Rival, UnavailableRivalError
from zellige.bench.rivals.torch_eager import arrays_of, in_layout

NAME = "torch-compile"
COMPILERS = ("g++", "clang++", "c++")
NO_COMPILER = f"it needs a C++ compiler: none of {', '.join(COMPILERS)} is on the PATH"


def find_compiler() -> str | None:
    """The C++ compiler that Inductor will find: the one in ``CXX``, or the first on the PATH."""
    return next((name for name in (os.environ.get("CXX", ""), *COMPILERS) if name and shutil.which(name)), None)


def build(model: torch.nn.Module, inputs: Inputs, threads: int) -> Rival:
    """Compile the network with Inductor, which happens at the first call."""
    compiler = find_compiler()
    if compiler is None:
        raise UnavailableRivalError(NO_COMPILER)
    torch.set_num_threads(threads)
    torch._dynamo.reset()
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    network = torch.compile(copy.deepcopy(model), options={"freezing": True}, dynamic=False)
    arguments = tuple(in_layout(tensor, torch.contiguous_format) for tensor in inputs)

    def call() -> object:
        with torch.no_grad():
            return network(*arguments)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call()
            call()
    except (RuntimeError, OSError) as error:
        raise UnavailableRivalError(f"torch.compile can't compile the network: {str(error).splitlines()[0]}") from error
    return Rival(NAME, torch.__version__, call, arrays_of, {"freezing": True, "threads": threads, "compiler": compiler})
