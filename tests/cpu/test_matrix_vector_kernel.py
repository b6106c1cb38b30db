"""The matrix-vector kernel against a product in float64, over generated matrices and batches."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from kernel_harness import NATIVE, check_assembly, run_kernel
from maps import numbers

from zellige.cpu.kernels.epilogue import ADD, activation
from zellige.cpu.kernels.matrix_vector import ROWS, MatrixVectorKernel
from zellige.cpu.tables.matrix_vector import RUNS, SINGLES, best_entries, matrix_vector_work, single_entries
from zellige.passes.sparsity import band_columns


def sparse_matrix(seed: int, shape: tuple[int, int], block: tuple[int, int], density: float) -> np.ndarray:
    random = np.random.default_rng(seed)
    mask = random.random((-(-shape[0] // block[0]), -(-shape[1] // block[1]))) < density
    return (random.standard_normal(shape) * np.kron(mask, np.ones(block, bool))[:shape[0], :shape[1]]).astype(np.float32)


@given(data=st.data())
def test_any_matrix_and_batch(data):
    groups = data.draw(st.sampled_from([1, 1, 3]))
    outputs, features = groups * data.draw(st.integers(1, 30)), groups * data.draw(st.integers(1, 40))
    tokens = data.draw(st.integers(1, 11))
    block = data.draw(st.sampled_from([(8, 8), (8, 1), (1, 1)]))
    density = data.draw(st.sampled_from([0.0, 0.4, 1.0]))
    matrix = sparse_matrix(data.draw(st.integers(0, 99)), (outputs, features // groups), block, density)
    epilogue = data.draw(st.sampled_from([(), (activation("relu"),), (ADD,)]))
    isa = data.draw(st.sampled_from(NATIVE))
    x, bias, residual = numbers(1, (tokens, features)), numbers(2, (outputs,)), numbers(3, (tokens, outputs))
    entry, counts, work = matrix_vector_work(band_columns(matrix, groups, ROWS), bias, features, tokens)
    target = np.full((tokens, outputs), 7.0, np.float32)
    slots = {"source": x, "target": target, **work.tables}
    if epilogue == (ADD,):
        slots["operand0"] = residual
    run_kernel(MatrixVectorKernel(entry, counts, epilogue), slots, work.items, isa)
    parts, matrices = np.split(x.astype(np.float64), groups, axis=1), np.split(matrix.astype(np.float64), groups)
    expected = np.concatenate([part @ rows.T for part, rows in zip(parts, matrices, strict=True)], 1) + bias
    if epilogue:
        expected = expected + residual if epilogue == (ADD,) else np.maximum(expected, 0)
    np.testing.assert_allclose(target, expected, rtol=1e-5, atol=features * 2.0**-24 * 16)


def test_blocks_are_stored_in_runs_and_single_columns_alone():
    blocks = sparse_matrix(0, (64, 64), (8, 8), 0.5)
    columns = sparse_matrix(0, (64, 64), (8, 1), 0.2)
    assert best_entries(band_columns(blocks, 1, ROWS), 64) == RUNS
    assert best_entries(band_columns(columns, 1, ROWS), 64) == SINGLES


def test_what_fills_an_entry_up_is_a_column_of_its_own_band():
    """An infinity times a weight of 0 is NaN: it may come from no column that another group has."""
    matrix = np.zeros((16, 12), np.float32)
    matrix[:8, 3], matrix[8:, [1, 5, 6, 8, 9]] = 1, 2
    starts, columns, values = single_entries(band_columns(matrix, 2, ROWS), 24, 4)
    assert starts.tolist() == [0, 1, 3] and columns.tolist() == [3] * 4 + [13, 17, 18, 20] + [21] * 4
    assert values[..., 0].tolist() == [[1, 0, 0, 0], [2, 2, 2, 2], [2, 0, 0, 0]]


def test_compiles_for_every_instruction_set():
    check_assembly(MatrixVectorKernel(RUNS, (4, 1), (activation("relu"),)))
    check_assembly(MatrixVectorKernel(SINGLES, (4, 1), (ADD,)))
