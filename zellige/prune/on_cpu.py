"""Where tensors are made that nobody gave a device: on the CPU, whatever the user's default is."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def on_cpu() -> AbstractContextManager[Any]:
    """In here the default device is the CPU.

    PyTorch's own context takes every function through Python, which costs small ones more than they take themselves; it is entered
    only where the default is another device.

    >>> with torch.device("meta"), on_cpu():
    ...     print(torch.empty(1).device)
    cpu
    """
    return nullcontext() if torch.empty(0).device.type == "cpu" else torch.device("cpu")
