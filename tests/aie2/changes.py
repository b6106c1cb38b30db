"""Programs with one thing changed, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from zellige.aie2.check import check
from zellige.aie2.cycles import step_cycles
from zellige.aie2.device import DEVICES
from zellige.aie2.program import Await, Program, Start
from zellige.aie2.simulate import simulate
from zellige.aie2.step import step as kernel
from zellige.aie2.tensor import host_value
from zellige.errors import CompileError

Change = Callable[[Program], Program]


def descriptor(task: str, at: int, **changes: object) -> Change:
    def change(program: Program) -> Program:
        chain = list(program.tasks[task].descriptors)
        chain[at] = replace(chain[at], **changes)
        return replace(program, tasks={**program.tasks, task: replace(program.tasks[task], descriptors=tuple(chain))})

    return change


def without(command: Start | Await) -> Change:
    return lambda program: replace(program, sequence=tuple(one for one in program.sequence if one != command))


def seen(program: Program, fed: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> str:
    try:
        check(program)
        run = simulate(program, fed, kernel, lambda packet: step_cycles(packet, DEVICES["npu1"]))
    except CompileError as error:
        return type(error).__name__
    values = {name: host_value(text) for name, text in program.outputs.items()}
    right = all(np.array_equal(value.read(run.host[value.buffer]), expected[name]) for name, value in values.items())
    return "right" if right else "wrong"
