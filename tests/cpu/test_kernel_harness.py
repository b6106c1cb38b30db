"""The harness must notice what it is there for."""

import faulthandler
import multiprocessing
import signal

import numpy as np
import pytest
from kernel_harness import NATIVE, run_kernel

from zellige.cpu.kernels.copy import CopyKernel, FillKernel
from zellige.cpu.layout import Dense
from zellige.cpu.tables.relayout import copy_work


@pytest.mark.parametrize(("begin", "length", "side"), [(-1, 4, "before"), (28, 5, "after")])
def test_a_write_outside_of_a_buffer_is_noticed(begin, length, side):
    tables = {"items": np.zeros(1, np.int32), "runs": np.array([[begin, length]], np.int32), "run_count": 1}
    with pytest.raises(AssertionError, match=f"wrote {side} the buffer"):
        run_kernel(FillKernel(), tables | {"target": np.ones(32, np.float32)}, 1)


def read_past_the_end() -> None:
    faulthandler.disable()
    work = copy_work(Dense((33,)), Dense((33,)), NATIVE[0].lanes)
    slots = {"source": np.ones(32, np.float32), "target": np.ones(33, np.float32)}
    run_kernel(CopyKernel(), work.tables | slots, work.items, external=["source"])


def test_a_read_outside_of_external_memory_is_noticed():
    process = multiprocessing.get_context("fork").Process(target=read_past_the_end)
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGSEGV
