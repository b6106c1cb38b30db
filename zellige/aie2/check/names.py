"""Names: each stands for one thing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from zellige.aie2.device import Device
from zellige.aie2.program import Program


def names(program: Program, device: Device) -> Iterator[str]:
    buffers = [one.name for one in program.buffers] + [one.name for one in program.host]
    for kind, found in (("buffers", buffers), ("locks", [one.name for one in program.locks])):
        yield from (f"there are {many} {kind} called {name}" for name, many in Counter(found).items() if many > 1)
    yield from (f"the task {task.name} goes by the name {name}" for name, task in program.tasks.items() if name != task.name)
    numbers = Counter((lock.tile, lock.number) for lock in program.locks)
    yield from (f"{many} locks are number {at} of {tile}" for (tile, at), many in numbers.items() if many > 1)
    cores = Counter(core.tile for core in program.cores)
    yield from (f"there are {many} cores at {tile}" for tile, many in cores.items() if many > 1)
