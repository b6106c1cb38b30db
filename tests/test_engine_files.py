"""Saved engines come back the same; no damaged or crafted file gives a wrong answer, or gets at memory that is not its own."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_checks import TARGETS, assert_close, assert_same_bits, compiled, random_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_networks import OperatorGenerator
from small_networks import Build

import zellige as zl
from zellige.cpu.lower.lowering import Options
from zellige.engine import Engine, build_engine
from zellige.errors import CompileError, FileFormatError, GraphError, ZelligeError
from zellige.graph.ir import Graph, TensorType
from zellige.graph.operators import OPERATORS, check_attributes, infer_type
from zellige.graph.reference import run_reference
from zellige.graph.serialize import graph_from_json, graph_to_json
from zellige.passes.pipeline import optimize

MOST_ELEMENTS = 10**6
"""Of a crafted graph that is run: it may ask for more than a test should take."""


def small() -> Graph:
    """A pruned convolution, a residual, a pooling and a classifier."""
    b = Build(1, 8, 6, 7, dtype="float32")
    y = b.conv(b.x, 16, 3, bias=True, padding=(1, 1, 1, 1))
    weight = b.graph.constants[b.graph.nodes[y].inputs[1]]
    weight[:8] = 0
    y = b("add", b.conv(b.activation(y, "relu"), 8, 1), b.x)
    y = b("max_pool2d", y, kernel=(2, 2), stride=(2, 2))
    return b.done(b("linear", b("reshape", y, shape=(1, 72)), b.random(5, 72), b.random(5)))


@pytest.fixture(scope="module")
def engine() -> Engine:
    return compiled(small(), threads=1)


@pytest.fixture(scope="module")
def content(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "model.zlg"
    engine.save(path)
    return path.read_bytes()


# Round trips


@given(seed=st.integers(0, 2**20), length=st.integers(1, 10))
def test_any_network_comes_back_the_same(seed: int, length: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "model.zlg"
    engine = compiled(OperatorGenerator(seed).network(length))
    engine.save(path)
    again = zl.load(path, threads=2)
    assert str(again.graph) == str(engine.graph) and again.threads == 2
    assert again.layers == engine.layers
    inputs = random_inputs(engine.graph)
    for ours, right in zip(again(*inputs), engine(*inputs), strict=True):
        np.testing.assert_array_equal(ours, right)


@pytest.mark.parametrize("winograd", [False, True])
def test_options_travel_with_the_file(tmp_path: Path, winograd: bool) -> None:
    b = Build(1, 16, 24, 24, dtype="float32")
    engine = compiled(b.done(b.conv(b.x, 16, 3, padding=(1, 1, 1, 1))), winograd=winograd)
    engine.save(tmp_path / "model.zlg")
    for each in (engine, again := zl.load(tmp_path / "model.zlg")):
        assert (each.layers[0].path == "winograd") == winograd
    np.testing.assert_array_equal(again(*(inputs := random_inputs(engine.graph))), engine(*inputs))


def test_a_file_is_bound_to_no_cpu(tmp_path: Path) -> None:
    """What one target's engine saves, every other one loads."""
    contents = []
    for target in TARGETS:
        compiled(small(), target=target).save(path := tmp_path / f"{target[4:]}.zlg")
        contents.append(path.read_bytes())
    assert len(set(contents)) == 1
    inputs = random_inputs(small())
    for target in TARGETS:
        assert_close(small(), inputs, [zl.load(path, target=target)(*inputs)])
    with pytest.raises(CompileError, match="can't run here"):
        zl.load(path, target="cpu:aarch64")
    with pytest.raises(CompileError, match="threads must be"):
        zl.load(path, threads=0)
    with pytest.raises(CompileError, match="tune must be one of"):
        zl.load(path, tune="never")


def test_saving_again_gives_the_same_bytes(engine: Engine, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "one.zlg").write_bytes(content)
    zl.load(tmp_path / "one.zlg").save(tmp_path / "two.zlg")
    assert (tmp_path / "two.zlg").read_bytes() == content


def test_a_loaded_engine_after_its_file_changed(engine: Engine, content: bytes, tmp_path: Path) -> None:
    """It computes what it was loaded from, whatever becomes of the file; it is saved the same, or not at all."""
    path, again = tmp_path / "one.zlg", tmp_path / "two.zlg"
    path.write_bytes(content)
    loaded = zl.load(path, threads=2)
    inputs = random_inputs(engine.graph)
    compiled(small(), winograd=False).save(path)  # another file under the name
    loaded.save(again)
    assert again.read_bytes() == content
    loaded = zl.load(again, threads=2)
    altered = bytearray(content)
    altered[-1] ^= 1
    again.write_bytes(bytes(altered))  # the same file, written into
    clone = loaded.clone()
    for each in (loaded, clone):
        np.testing.assert_array_equal(each(*inputs), engine(*inputs))
        with pytest.raises(ZelligeError, match=r"two\.zlg was altered since it was loaded"):
            each.save(tmp_path / "three.zlg")
    assert not (tmp_path / "three.zlg").exists()


def test_a_save_that_fails_leaves_the_old_file(engine: Engine, content: bytes, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.zlg"
    engine.save(path)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(ZelligeError, match=r"No space left on device"):
        patch.setattr("os.fsync", full)
        engine.save(path)
    assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]


# Damage


def load(content: bytes, folder: Path) -> Engine:
    (folder / "model.zlg").write_bytes(content)
    return zl.load(folder / "model.zlg", threads=1)


def test_any_byte_altered(engine: Engine, content: bytes, tmp_path: Path) -> None:
    positions = random.Random(0).sample(range(len(content)), 150)
    for position in [*range(12), *positions, len(content) - 1]:
        altered = bytearray(content)
        altered[position] ^= 1 << position % 8
        with pytest.raises(FileFormatError, match=r"model\.zlg: "):
            load(bytes(altered), tmp_path)


def test_any_length_cut(content: bytes, tmp_path: Path) -> None:
    for length in [*range(0, len(content), 97), len(content) - 1]:
        with pytest.raises(FileFormatError, match=r"model\.zlg: "):
            load(content[:length], tmp_path)


# Crafted files, with a right checksum


def crafted(content: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The file with its metadata changed: section → its JSON value."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8:8 + length])
    metadata = header["__metadata__"]
    sections = {name: json.loads(metadata[name]) for name in ("graph", "constants", "extra")}
    change(sections | {"metadata": metadata})
    metadata |= {name: json.dumps(value) for name, value in sections.items()} | {"sha256": "0" * 64}
    text = json.dumps(header, separators=(",", ":")).encode()
    blank = len(text).to_bytes(8, "little") + text + content[8 + length:]
    digest = hashlib.sha256(blank).hexdigest().encode()
    return blank.replace(b"0" * 64, digest, 1)


def test_the_craft_makes_good_files(engine: Engine, content: bytes, tmp_path: Path) -> None:
    again = load(crafted(content, lambda sections: None), tmp_path)
    np.testing.assert_array_equal(again(*(inputs := random_inputs(engine.graph))), engine(*inputs))


@pytest.mark.parametrize("extra", [{}, {"winograd": 1}, {"winograd": "yes"}, {"winograd": None}, {"Winograd": True}], ids=str)
def test_options_that_are_none(content: bytes, tmp_path: Path, extra: dict[str, object]) -> None:
    def change(sections: dict[str, Any]) -> None:
        sections["extra"].clear()
        sections["extra"].update(extra)

    with pytest.raises(FileFormatError, match=r"model\.zlg: expected the option 'winograd' to be true or false"):
        load(crafted(content, change), tmp_path)


def test_a_newer_version(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"version 2 of the format.*upgrade zellige"):
        load(crafted(content, lambda sections: sections["metadata"].update(version="2")), tmp_path)


@pytest.mark.parametrize("tree", [{"tuple": []}, {"tuple": [0, 0]}, {"tuple": [0, 1]}, {"tuple": [None]}], ids=str)
def test_arguments_that_no_call_can_have(content: bytes, tmp_path: Path, tree: object) -> None:
    with pytest.raises(FileFormatError, match="input_tree"):
        load(crafted(content, lambda sections: sections["graph"].update(input_tree=tree)), tmp_path)


@pytest.mark.parametrize("epilogue", [
    [{"op": "activation", "attributes": {"function": "relu"}, "operand": None}],
    [{"op": "add", "attributes": {}, "operand": "max_pool2d_4"}]], ids=["activation", "addition"])
def test_an_epilogue_where_no_kernel_has_one(content: bytes, tmp_path: Path, epilogue: list[object]) -> None:
    def change(sections: dict[str, Any]) -> None:
        graph = sections["graph"]
        pool = next(node for node in graph["nodes"] if node["op"] == "max_pool2d")
        shuffle = pool | {"name": "shuffled", "op": "channel_shuffle", "inputs": [pool["name"]], "attributes": {"groups": 2}}
        shuffle["epilogue"] = [step | ({"operand": pool["name"]} if step["operand"] else {}) for step in epilogue]
        graph["nodes"].append(shuffle)
        graph["outputs"] = ["shuffled"]

    with pytest.raises(CompileError, match=r"no CPU kernel for shuffled \(channel_shuffle followed by"):
        load(crafted(content, change), tmp_path)


def test_names_that_the_compiler_gives_buffers(tmp_path: Path) -> None:
    """A file may call its values as it likes, and does not thereby get at the memory of others."""
    b = Build(1, 4, 9, 9, dtype="float32")
    y = b("conv2d", b.x, b.random(8, 4, 3, 3), stride=(2, 2), name="y")
    names = ["y staged", "z product", "z reads y", "y tiles", "memory of the caller", "x0 again"]
    outputs = [b("mean", y, dimensions=(1, 2, 3), keep=False, name=name) for name in names]
    z = b("linear", y, b.random(5, 4), name="z")
    graph = b.done(y, *outputs, z)
    inputs = random_inputs(graph)
    assert_close(graph, inputs, assert_same_bits(compiled(graph), inputs, threads=(2,)))
    assert_close(graph, inputs, assert_same_bits(compiled(graph, tune="measure"), inputs, threads=(2,)))


class Craft:
    """Changes to a graph's JSON form, one at a time, such as an attacker or a fault might make."""

    def __init__(self, graph: Graph, seed: int) -> None:
        self.random = random.Random(seed)
        self.names = [*graph.inputs, *graph.constants, *graph.nodes]
        self.json: Any = json.loads(json.dumps(graph_to_json(graph)))
        self.constants = dict(graph.constants)

    def change(self) -> None:
        node = self.random.choice(self.json["nodes"])
        changes = [getattr(self, name) for name in dir(self) if name.startswith("alter_")]
        self.random.choice(changes)(node)

    def alter_input(self, node: Any) -> None:
        node["inputs"][self.random.randrange(len(node["inputs"]))] = self.random.choice(self.names)

    def alter_epilogue(self, node: Any) -> None:
        step = self.random.choice([
            {"op": "add", "attributes": {}, "operand": self.random.choice(self.names)},
            {"op": "activation", "attributes": {"function": self.random.choice(["relu", "tanh"])}, "operand": None}])
        node["epilogue"].append(step)

    def alter_outputs(self, node: Any) -> None:
        self.json["outputs"].append(self.random.choice(self.names))
        self.json["output_tree"] = {"tuple": list(range(len(self.json["outputs"])))}

    def alter_dtype(self, node: Any) -> None:
        node["dtype"] = "f64"

    def alter_attribute(self, node: Any) -> None:
        if node["attributes"]:
            name = self.random.choice(list(node["attributes"]))
            node["attributes"][name] = self._other(node["attributes"][name])

    def alter_operator(self, node: Any) -> None:
        node["op"] = self.random.choice(list(OPERATORS))

    def alter_input_shape(self, node: Any) -> None:
        first = self.json["inputs"][0]
        first["shape"] = [self.random.choice([1, 2, 3, 7]) for _ in first["shape"]]

    def _other(self, value: Any) -> Any:
        if isinstance(value, list) and value:
            place = self.random.randrange(len(value))
            return [*value[:place], self._other(value[place]), *value[place + 1:]]
        if isinstance(value, str):
            return self.random.choice(["relu", "tanh", "zeros", "reflect", "constant", "nearest", "bilinear", "circular"])
        return self.random.choice([0, 1, 2, 3, -1, 5, 100, 2**31, 2**40, True, False, 0.5])

    def repair_types(self) -> None:
        """Make the types agree again, as a careful attacker would; what has none stays as it is."""
        known = {each["name"]: TensorType(tuple(each["shape"]), each["dtype"]) for each in self.json["inputs"]}
        known |= {name: TensorType(array.shape) for name, array in self.constants.items()}
        for node in self.json["nodes"]:
            attributes = {name: tuple(value) if isinstance(value, list) else value for name, value in node["attributes"].items()}
            try:
                check_attributes(node["op"], attributes)
                kind = infer_type(node["op"], [known[name] for name in node["inputs"]], attributes)
            except (GraphError, KeyError):
                return
            node["shape"], node["dtype"] = list(kind.shape), kind.dtype
            known[node["name"]] = kind


@settings(max_examples=8 * settings().max_examples)
@given(seed=st.integers(0, 2**20), attack=st.integers(0, 2**20), changes=st.integers(1, 2), careful=st.booleans())
def test_a_crafted_graph_is_refused_or_computes_what_it_says(seed: int, attack: int, changes: int, careful: bool) -> None:
    craft = Craft(optimize(OperatorGenerator(seed).network(6)), attack)
    for _ in range(changes):
        craft.change()
    if careful:
        craft.repair_types()
    try:
        graph = graph_from_json(craft.json, craft.constants)
        if sum(node.type.elements for node in graph) > MOST_ELEMENTS:
            return
        engine = build_engine(graph, Options(), threads=1)
    except ZelligeError:
        return
    inputs = random_inputs(graph)
    assert_as_close_as_it_can_be(graph, inputs, assert_same_bits(engine, inputs, threads=(2,)))


def assert_as_close_as_it_can_be(graph: Graph, inputs: list[np.ndarray], outputs: list[np.ndarray]) -> None:
    """Crafted graphs may magnify rounding: what moves much when the inputs move by a little may be off by more."""
    noise = [array * (1 + 1e-6 * np.sign(other)) for array, other in zip(inputs, random_inputs(graph, seed=2), strict=True)]
    for ours, right, moved in zip(outputs, run_reference(graph, inputs), run_reference(graph, noise), strict=True):
        sure = np.isfinite(right) & np.isfinite(moved) & (np.abs(right) < 1e30)
        if sure.any():
            allowed = 1e-4 * max(1.0, np.abs(right[sure]).max()) + 100 * np.abs(right - moved)[sure].max()
            assert np.abs(ours - right)[sure].max() <= allowed, f"off in\n{graph}"
