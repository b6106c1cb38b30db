"""Launch plans on devices: small tables of int32 that say which program does what, made once and kept for good.

A captured graph knows a plan's address alone, and nobody knows how long a graph lives: so plans are never let go. There are few,
since none depends on the number of tokens itself.

PyTorch's compiler runs a function that it is to capture (``mode="reduce-overhead"``) with all allocations of the thread in the
graph's own pool (``torch/_inductor/cudagraph_trees.py``). What stays alive there and is no result is an error of the first run, and
overwritten later on. Plans are therefore uploaded by a thread of their own, whose allocations go where they always go. Layers have
theirs made when they are made or moved, before any of that.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from zellige.errors import CompileError


def uploaded(plan: np.ndarray, device: torch.device) -> Tensor:
    """The plan on a device, in ordinary memory.

    Raises ``CompileError`` while the current stream is being captured: a copy would become a part of that graph.
    """
    if device.type != "cuda":
        return torch.from_numpy(plan).to(device)
    if torch.cuda.is_current_stream_capturing():
        raise CompileError(f"the plan of a launch on {device} was first asked for inside of a CUDA graph's capture, where it can't "
                           "be uploaded; call the layer or the operator once before the capture, as kernels must be compiled too")
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: torch.from_numpy(plan).to(device)).result()
