"""The tests of all kernel families once more, on emulated NEON."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
import test_activation_kernel
import test_band_kernel
import test_copy_kernel
import test_depthwise_kernel
import test_elementwise_kernel
import test_exchange_kernel
import test_interpolate_kernel
import test_matrix_vector_kernel
import test_pool_kernel
import test_reduce_kernel
import test_row_winograd_kernel
import test_softmax_kernel
import test_winograd_kernel
from emulator import kernel_server, needs_emulator
from hypothesis import strategies as st
from kernel_harness import run_kernel

from zellige.cpu.isa import NEON
from zellige.cpu.kernels.copy import CopyKernel, FillKernel
from zellige.cpu.layout import Dense
from zellige.cpu.tables.relayout import copy_work

pytestmark = needs_emulator

FAMILIES = [
    (test_band_kernel, "test_any_stride_one_convolution", ()),
    (test_winograd_kernel, "test_any_three_by_three_convolution", ()),
    (test_row_winograd_kernel, "test_any_stem", ()),
    (test_depthwise_kernel, "test_any_depthwise_convolution", ()),
    (test_matrix_vector_kernel, "test_any_matrix_and_batch", ()),
    (test_pool_kernel, "test_max_pool_of_any_window", ()),
    (test_pool_kernel, "test_average_pool_of_any_window", ()),
    (test_pool_kernel, "test_adaptive_pools", (test_pool_kernel.MAXIMUM,)),
    (test_elementwise_kernel, "test_broadcasting_of_any_shapes", ("add",)),
    (test_elementwise_kernel, "test_broadcasting_of_any_shapes", ("maximum",)),
    (test_elementwise_kernel, "test_epilogue_adds_values_of_other_layouts", ()),
    (test_copy_kernel, "test_stage_writes_padding_and_phases", ()),
    (test_copy_kernel, "test_copy_between_layouts", ()),
    (test_copy_kernel, "test_transpose", ()),
    (test_reduce_kernel, "test_any_dimensions_of_any_shape", (True,)),
    (test_reduce_kernel, "test_global_average_pooling", ()),
    (test_softmax_kernel, "test_any_dimension_of_any_shape", (False,)),
    (test_exchange_kernel, "test_any_lines_and_pieces", ()),
    (test_interpolate_kernel, "test_any_size_to_any_other", ("bilinear", False)),
]


@pytest.fixture(scope="module", autouse=True)
def stop_server() -> Iterator[None]:
    yield
    if kernel_server.cache_info().currsize:
        kernel_server().close()
        kernel_server.cache_clear()


@pytest.mark.parametrize("module, name, arguments", FAMILIES, ids=lambda value: value if isinstance(value, str) else "")
def test_kernels_over_generated_shapes(module: ModuleType, name: str, arguments: tuple[object, ...],
                                       monkeypatch: pytest.MonkeyPatch):
    """The family's own test, with NEON as the only instruction set to draw from."""
    monkeypatch.setattr(module, "NATIVE", [NEON])
    monkeypatch.setattr(module, "ISAS", st.just(NEON), raising=False)
    getattr(module, name)(*arguments)


@pytest.mark.parametrize("case", test_activation_kernel.CASES, ids=str)
def test_activations(case):
    test_activation_kernel.test_a_few_ulp_everywhere(case, NEON)


@pytest.mark.parametrize(("begin", "length", "side"), [(-1, 4, "before"), (28, 5, "after")])
def test_a_write_outside_of_a_buffer_is_noticed(begin, length, side):
    tables = {"items": np.zeros(1, np.int32), "runs": np.array([[begin, length]], np.int32), "run_count": 1}
    with pytest.raises(AssertionError, match=f"wrote {side} the buffer"):
        run_kernel(FillKernel(), tables | {"target": np.ones(32, np.float32)}, 1, NEON)


def test_a_read_outside_of_external_memory_is_noticed():
    work = copy_work(Dense((33,)), Dense((33,)), NEON.lanes)
    slots = {"source": np.ones(32, np.float32), "target": np.ones(33, np.float32)}
    with pytest.raises(pytest.fail.Exception, match="crashed on aarch64"):
        run_kernel(CopyKernel(), work.tables | slots, work.items, NEON, external=["source"])
