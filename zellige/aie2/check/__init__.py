"""Static checks: whether a device could hold and route a program at all, before anything runs.

A check is a function ``(program, device)`` that yields a sentence for everything that it finds wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from zellige.aie2.check.descriptors import descriptors
from zellige.aie2.check.flows import flows
from zellige.aie2.check.names import names
from zellige.aie2.check.places import cores, locks, memory
from zellige.aie2.check.routes import ports
from zellige.aie2.check.tasks import sequence, tasks
from zellige.aie2.device import Device, device_named
from zellige.aie2.program import Program
from zellige.errors import CompileError

Check = Callable[[Program, Device], Iterator[str]]

CHECKS: Mapping[str, Check] = {
    "names": names, "memory": memory, "locks": locks, "cores": cores, "tasks": tasks, "descriptors": descriptors,
    "sequence": sequence, "flows": flows, "ports": ports,
}  # fmt: skip
"""In this order: later ones rely on what earlier ones have found right."""


def check(program: Program, device: Device | None = None) -> None:
    """Refuse a program that its device can't hold. ``device``: that of its name, if ``None``.

    Raises ``CompileError`` with the first thing that is wrong.
    """
    where = device_named(program.device) if device is None else device
    for find in CHECKS.values():
        for sentence in find(program, where):
            raise CompileError(f"{program.name} on {where.name}: {sentence}")
