"""A graph that is saved and loaded is the same graph, and the file is as small as promised."""

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from zellige.errors import FileFormatError, GraphError, ZelligeError
from zellige.graph.ir import Fused, Graph, TensorType
from zellige.graph.operators import make_node
from zellige.pack import load_graph, save_graph
from zellige.pack.file import decode_graph, encode_graph


def linear_graph(weight: np.ndarray, **constants: np.ndarray) -> Graph:
    """A network of one linear layer."""
    x = TensorType((1, weight.shape[1]))
    node = make_node("y", "linear", ["x", "weight"], [x, TensorType(weight.shape)])
    return Graph("net", {"x": x}, {"y": node}, ("y",), {"weight": weight, **constants},
                 {"tuple": [0]}, {"dict": [["logits", 0], ["hidden", None]]})


def small_graph() -> Graph:
    """A convolution with a fused add and an activation, and a reshape."""
    x, weight = TensorType((1, 8, 5, 5)), np.zeros((8, 8, 3, 3), np.float32)
    weight[:, 4:] = np.arange(8 * 4 * 9, dtype=np.float32).reshape(8, 4, 3, 3)
    conv = make_node("conv", "conv2d", ["x", "conv.weight"], [x, TensorType(weight.shape)], {"padding": (1, 1, 1, 1)},
                     origin="layers.0")
    epilogue = (Fused("add", {}, "x"), Fused("activation", {"function": "clamp", "low": 0.0, "high": float("inf")}))
    conv = type(conv)(**{**conv.__dict__, "epilogue": epilogue})
    flat = make_node("flat", "reshape", ["conv"], [conv.type], {"shape": (1, 200)})
    return Graph("small", {"x": x}, {"conv": conv, "flat": flat}, ("flat",), {"conv.weight": weight}, {"tuple": [0]}, 0)


def as_bytes(graph: Graph, extra: dict[str, object] | None = None) -> bytes:
    return b"".join(encode_graph(graph, extra or {}))


def assert_same(one: Graph, other: Graph) -> None:
    assert list(one.constants) == list(other.constants)
    for name, array in one.constants.items():
        assert other.constants[name].dtype == array.dtype
        np.testing.assert_array_equal(other.constants[name], array)
    parts = ("name", "inputs", "nodes", "outputs", "input_tree", "output_tree")
    assert [getattr(one, part) for part in parts] == [getattr(other, part) for part in parts]
    assert str(one) == str(other)


@pytest.mark.parametrize("graph", [small_graph(), linear_graph(np.ones((3, 5), np.float32))], ids=["small", "linear"])
def test_round_trip(graph: Graph, tmp_path: Path) -> None:
    extra = {"producer": "test", "threads": None, "list": [1, 2.5, "ü"]}
    save_graph(graph, tmp_path / "model.zlg", extra)
    loaded, back = load_graph(tmp_path / "model.zlg")
    assert_same(graph, loaded)
    assert back == extra
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.zlg"]


ARRAYS = [np.float32(1.5), np.arange(5), np.ones((2, 3), bool), np.zeros((1, 2, 2), np.int32), np.eye(9)]


@given(st.integers(0, 1000), st.integers(1, 30), st.integers(1, 30), st.floats(0, 1),
       st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1), st.sampled_from(ARRAYS), max_size=3))
def test_any_constants(seed: int, rows: int, columns: int, density: float, others: dict[str, np.ndarray]) -> None:
    generator = np.random.default_rng(seed)
    weight = generator.standard_normal((rows, columns)) * (generator.random((rows, columns)) < density)
    graph = linear_graph(weight.astype(np.float32))
    constants = {name: np.asarray(value) for name, value in others.items() if name not in ("x", "y", "weight")}
    graph = graph.with_nodes(graph, {**constants, **graph.constants})
    assert_same(graph, decode_graph(as_bytes(graph))[0])


def test_layout_of_arrays_does_not_matter() -> None:
    weight = np.random.default_rng(0).standard_normal((12, 20)).astype(np.float32)
    expected = as_bytes(linear_graph(weight))
    assert as_bytes(linear_graph(np.asfortranarray(weight))) == expected
    assert as_bytes(linear_graph(np.repeat(weight, 2, axis=1)[:, ::2])) == expected
    assert as_bytes(linear_graph(weight.astype(">f4"))) == expected


def test_the_same_graph_gives_the_same_bytes() -> None:
    assert as_bytes(small_graph(), {"a": 1}) == as_bytes(small_graph(), {"a": 1})


def test_loaded_constants_are_writable_and_aligned() -> None:
    graph = linear_graph(np.ones((3, 5), np.float32), flag=np.ones(3, bool), wide=np.arange(3.0))
    for array in decode_graph(as_bytes(graph))[0].constants.values():
        assert array.flags.writeable and array.flags.aligned and array.flags.c_contiguous


def test_safetensors_reads_the_file(tmp_path: Path) -> None:
    save_graph(small_graph(), tmp_path / "model.zlg")
    tensors = safetensors.numpy.load_file(tmp_path / "model.zlg")
    assert {name: array.dtype.name for name, array in tensors.items()} == {
        "kept/conv.weight": "uint8", "values/conv.weight": "float32"}
    with safetensors.safe_open(tmp_path / "model.zlg", "numpy") as file:
        assert json.loads(file.metadata()["constants"]) == {
            "conv.weight": {"dtype": "f32", "shape": [8, 8, 3, 3], "block": [8, 4, 9]}}


def test_size_at_half_the_blocks() -> None:
    """The shapes of a residual network's stage, half of the 8 × 8 blocks gone: at most 0.52 of the dense weights."""
    generator = np.random.default_rng(0)
    graph = linear_graph(np.zeros((8, 8), np.float32))
    constants = {}
    for index, (rows, columns, taps) in enumerate([(64, 64, 1), (64, 64, 3), (256, 64, 1), (1000, 512, 1)]):
        weight = generator.standard_normal((-(-rows // 8), -(-columns // 8))) > 0
        weight.flat[generator.permutation(weight.size)] = np.arange(weight.size) % 2
        cube = np.kron(weight, np.ones((8, 8)))[:rows, :columns, None, None] * generator.standard_normal((taps, taps))
        constants[f"{index}"] = cube.astype(np.float32)
    dense = sum(array.nbytes for array in constants.values())
    assert len(as_bytes(graph.with_nodes(graph, {**graph.constants, **constants}))) <= 0.52 * dense


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_no_nan_or_infinity_is_saved(bad: float, tmp_path: Path) -> None:
    weight = np.ones((3, 5), np.float32)
    weight[1, 2] = bad
    with pytest.raises(FileFormatError, match="'weight' holds NaN or infinity"):
        save_graph(linear_graph(weight), tmp_path / "model.zlg")
    assert not list(tmp_path.iterdir())


def test_what_can_not_be_saved(tmp_path: Path) -> None:
    graph = linear_graph(np.ones((3, 5), np.float32))
    path = tmp_path / "model.zlg"
    with pytest.raises(FileFormatError, match="'extra'"):
        save_graph(graph, path, {"a": float("nan")})
    with pytest.raises(FileFormatError, match="'extra'"):
        save_graph(graph, path, {"a": object()})
    with pytest.raises(GraphError, match="no node"):
        save_graph(Graph(**{**graph.__dict__, "outputs": ("z",)}), path)
    with pytest.raises(ZelligeError):
        save_graph(linear_graph(np.ones((3, 5), np.float32), half=np.ones(3, np.float16)), path)
    with pytest.raises(ZelligeError, match="No such file or directory"):
        save_graph(graph, tmp_path / "missing" / "model.zlg")
    assert not list(tmp_path.iterdir())


def test_what_can_not_be_loaded(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ZelligeError, match=r"can't load .*missing\.zlg: No such file or directory"):
        load_graph(tmp_path / "missing.zlg")
    for path in (tmp_path, tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(ZelligeError, match="not a file"):
            load_graph(path)
    with pytest.raises(ZelligeError, match="null"):
        load_graph("null\0byte")


def test_a_failing_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.zlg"
    save_graph(linear_graph(np.ones((3, 5), np.float32)), path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ZelligeError, match="No space left"):
        save_graph(small_graph(), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.zlg"]
    assert stat.S_ISREG(path.stat().st_mode)
