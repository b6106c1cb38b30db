"""What the benchmark keeps on disk: machine code, for all of its processes and for later runs; and what was chosen by timing.

What was chosen while others used the GPU must not be taken for the fastest afterwards, so it is forgotten before anything is timed:
Zellige's choices, and all that Inductor keeps, which has configurations that it timed in it. What Inductor had Triton compile is
machine code like any other, and stays.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from zellige.pack.owned import default_directory

NAME = "gpu-benchmark"
CHOSEN = ("choices", "inductor")
"""Directories of what was chosen by timing."""


def root() -> Path:
    """Under Zellige's own cache, so that it is as private."""
    return default_directory().expanduser() / NAME


def environment() -> Mapping[str, str]:
    """Variables of the processes that share the caches. Triton's is named here because Inductor would move it to its own otherwise,
    in the middle of a process."""
    return {"ZELLIGE_CACHE": str(root()), "TRITON_CACHE_DIR": str(root() / "triton"),
            "TORCHINDUCTOR_CACHE_DIR": str(root() / "inductor")}


def forget_choices() -> None:
    """Whatever is chosen from now on is chosen anew."""
    for name in CHOSEN:
        if (root() / name).exists():
            shutil.rmtree(root() / name)
