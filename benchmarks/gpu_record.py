"""What a benchmark found, in one file that is written again after every step, and what it says meanwhile."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import torch
import triton
from gpu_join import joined

from zellige.pack.atomic import write_atomically


def say(text: str) -> None:
    """Print a line; where sections run side by side, behind the name of the thread that says it."""
    thread = threading.current_thread()
    print(text if thread is threading.main_thread() else f"   {thread.name:>28} | {text.strip()}", flush=True)


def conditions() -> dict[str, object]:
    properties = torch.cuda.get_device_properties(0)
    return {"gpu": properties.name, "multiprocessors": properties.multi_processor_count,
            "l2_bytes": getattr(properties, "L2_cache_size", None), "memory_bytes": properties.total_memory,
            "torch": torch.__version__, "cuda": torch.version.cuda, "triton": triton.__version__,
            "python": sys.version.split()[0], "dtype": "bfloat16"}


class Record:
    """Facts by the names of sections. ``join``: keep what the file has from sections that are not run now."""

    def __init__(self, directory: Path, conditions: dict[str, Any], join: bool = False):
        self.file = directory / f"gpu-{conditions['gpu'].lower().replace('nvidia ', '').split()[0]}.json"
        self.conditions, self.before = conditions, None
        self.facts: dict[str, Any] = {"layers": []}
        self.lock = threading.Lock()
        if join and self.file.exists():
            self.before = json.loads(self.file.read_text())
            joined(self.before, {"conditions": conditions})  # or it raises now

    def put(self, name: str, found: object) -> None:
        with self.lock:
            self.facts[name] = found
        self.write()

    def write(self) -> None:
        with self.lock:
            facts = {"conditions": self.conditions, **self.facts}
            text = json.dumps(facts if self.before is None else joined(self.before, facts), indent=1) + "\n"
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.file, [text.encode()])
