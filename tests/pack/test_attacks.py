"""Damaged files, and crafted ones with a right checksum: each gives ``FileFormatError``, soon and in little memory."""

import hashlib
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from zellige.errors import FileFormatError
from zellige.graph.ir import Graph, TensorType
from zellige.graph.operators import make_node
from zellige.pack import load_graph, save_graph
from zellige.pack.file import decode_graph, encode_graph

WEIGHT = "fc.weight"


def victim() -> Graph:
    """A linear layer of 16 × 16 in four blocks of which two are kept, its bias, and a constant of each other type."""
    x, y = TensorType((1, 16)), TensorType((16,))
    weight = np.kron(np.eye(2, dtype=np.float32), np.arange(1, 65, dtype=np.float32).reshape(8, 8))
    constants = {WEIGHT: weight, "fc.bias": np.arange(16, dtype=np.float32), "flag": np.array([True, False]),
                 "wide": np.float64([1.0, 2.0])}
    linear = make_node("fc", "linear", ["x", WEIGHT, "fc.bias"], [x, TensorType((16, 16)), y])
    relu = make_node("out", "activation", ["fc"], [linear.type], {"function": "leaky_relu"})
    return Graph("victim", {"x": x}, {"fc": linear, "out": relu}, ("out",), constants, {"tuple": [0]}, 0)


GOOD = b"".join(encode_graph(victim(), {"threads": 2}))
LENGTH = int.from_bytes(GOOD[:8], "little")
DATA = GOOD[8 + LENGTH:]


def seal(text: bytes, data: bytes = DATA) -> bytes:
    """A file with this header and a right checksum, as the format page says: the digits are zeros while it is taken."""
    start = text.index(b'"sha256":"') + 10
    text = text[:start] + b"0" * 64 + text[start + 64:]
    content = len(text).to_bytes(8, "little") + text + data
    digest = hashlib.sha256(content).hexdigest().encode()
    return content[:8 + start] + digest + content[8 + start + 64:]


def sealed(header: dict[str, Any], data: bytes = DATA) -> bytes:
    return seal(json.dumps(header, separators=(",", ":")).encode(), data)


def header() -> dict[str, Any]:
    return json.loads(GOOD[8:8 + LENGTH])


def section(change: Callable[[Any], object], name: str) -> bytes:
    """The good file with one section changed in place (or replaced, if ``change`` returns something)."""
    crafted = header()
    value = json.loads(crafted["__metadata__"][name])
    replaced = change(value)
    crafted["__metadata__"][name] = json.dumps(value if replaced is None else replaced)
    return sealed(crafted)


def refuse(content: bytes, match: str = "") -> None:
    with pytest.raises(FileFormatError, match=match):
        decode_graph(content)


def test_the_tools_here_make_good_files() -> None:
    assert sealed(header()) == seal(GOOD[8:8 + LENGTH].rstrip())
    for content in (GOOD, sealed(header()), section(lambda graph: None, "graph")):
        graph, extra = decode_graph(content)
        assert str(graph) == str(victim()) and extra == {"threads": 2}
        np.testing.assert_array_equal(graph.constants[WEIGHT], victim().constants[WEIGHT])


def test_flip_any_byte() -> None:
    for position in range(len(GOOD)):
        for flip in (1, 2, 0x20, 0x80, 0xFF):
            changed = bytearray(GOOD)
            changed[position] ^= flip
            refuse(bytes(changed))


def test_flip_any_byte_of_the_header_and_seal() -> None:
    """An attacker can compute a checksum: what is then accepted must be a valid graph; all else is one error."""
    accepted = 0
    for position in range(8, 8 + LENGTH):
        changed = bytearray(GOOD[8:8 + LENGTH])
        changed[position - 8] ^= 1
        try:
            content = seal(bytes(changed))
        except ValueError:                                      # the checksum's own name was hit
            continue
        try:
            graph, _ = decode_graph(content)
        except FileFormatError:
            continue
        accepted += 1
        assert b"".join(encode_graph(graph, {}))
    assert accepted > 0                                         # a letter of a module's name, say


def test_truncated_anywhere(tmp_path: Path) -> None:
    for length in [*range(0, 120), *range(120, len(GOOD), 7), len(GOOD) - 1]:
        refuse(GOOD[:length])
    for length in (0, 7, 60, 100, len(GOOD) - 1):
        (tmp_path / "model.zlg").write_bytes(GOOD[:length])
        with pytest.raises(FileFormatError, match=r"model\.zlg: "):
            load_graph(tmp_path / "model.zlg")


@given(st.binary(max_size=200))
def test_any_bytes(content: bytes) -> None:
    refuse(content)
    refuse(GOOD + content + b"\0")


@pytest.mark.parametrize("length", [0, 1, LENGTH - 1, LENGTH + 1, len(GOOD), 2**31, 2**63, 2**64 - 1])
def test_wrong_header_lengths(length: int) -> None:
    refuse(length.to_bytes(8, "little") + GOOD[8:])


def test_versions() -> None:
    for version in ("2", "10", "999999999"):
        crafted = header()
        crafted["__metadata__"]["version"] = version
        refuse(sealed(crafted), f"version {version} of the format.*upgrade zellige")
        refuse(json_without_checksum(crafted), f"version {version} of the format.*upgrade zellige")
    for version in ("0", "-1", "1.0", "", " 1", "\u0661", "1\n", "9" * 30, 1, None, ["1"]):
        crafted["__metadata__"]["version"] = version
        refuse(sealed(crafted))


def json_without_checksum(crafted: dict[str, Any]) -> bytes:
    """A newer format may count its checksum otherwise; that it is newer must be said all the same."""
    text = json.dumps(crafted, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + DATA


TENSOR, KEPT, VALUES = "dense/fc.bias", f"kept/{WEIGHT}", f"values/{WEIGHT}"


@pytest.mark.parametrize("name, change", [
    (TENSOR, {"data_offsets": [0, 64]}), (TENSOR, {"data_offsets": [16, 0]}), (TENSOR, {"data_offsets": [-64, 0]}),
    (TENSOR, {"data_offsets": [0, 2**63]}), (TENSOR, {"data_offsets": [2**64 - 64, 2**64]}),
    (TENSOR, {"data_offsets": [0.0, 64.0]}), (TENSOR, {"data_offsets": None}), (TENSOR, {"data_offsets": [16]}),
    (TENSOR, {"shape": [15]}), (TENSOR, {"shape": [4, 4]}), (TENSOR, {"shape": [2**40]}), (TENSOR, {"shape": [-16]}),
    (TENSOR, {"shape": [0, 2**39, 2**39], "data_offsets": [0, 0]}),
    (TENSOR, {"shape": [2**32, 2**32]}), (TENSOR, {"shape": [0, 2**62]}), (TENSOR, {"shape": [2**63, 2**63, 16]}),
    (TENSOR, {"shape": "16"}), (TENSOR, {"shape": [1] * 100 + [16]}), (TENSOR, {"dtype": "I32"}),
    (TENSOR, {"dtype": "F64"}), (TENSOR, {"dtype": "F8_E4M3"}), (TENSOR, {"dtype": "O"}), (TENSOR, {"dtype": None}),
    (TENSOR, {"dtype": "BF16", "shape": [32]}), (VALUES, {"dtype": "I32"}), (VALUES, {"shape": [2, 64]}),
    (VALUES, {"dtype": "F64", "shape": [64]}), (KEPT, {"dtype": "BOOL"}), (KEPT, {"shape": [1, 1]}),
    (KEPT, {"shape": []}), ("dense/flag", {"dtype": "U8"}),
], ids=str)
def test_tensor_entries(name: str, change: dict[str, Any]) -> None:
    crafted = header()
    crafted[name].update(change)
    refuse(sealed(crafted))


def test_tensors_that_do_not_belong() -> None:
    crafted = header()
    crafted["dense/more"] = {"dtype": "U8", "shape": [1], "data_offsets": [len(DATA), len(DATA) + 1]}
    refuse(sealed(crafted, DATA + b"\0"), "belong to no constant")
    crafted = header()
    crafted["__metadata__"]["more"] = ""
    refuse(sealed(crafted), "metadata")
    for name in ("graph", "constants", "extra", "format", "version"):
        crafted = header()
        del crafted["__metadata__"][name]
        refuse(sealed(crafted))
    for name in (TENSOR, KEPT, VALUES):
        crafted = header()
        crafted[f"dense/{'x' * 9}"] = crafted.pop(name)
        refuse(sealed(crafted), "lacks its tensor")
    refuse(sealed(header(), DATA + b"\0"))
    refuse(sealed(header(), DATA[:-1]))
    crafted = header()
    start = crafted[VALUES]["data_offsets"][0]
    crafted[TENSOR]["data_offsets"] = [start, start + 64]
    refuse(sealed(crafted))                                     # two tensors share their bytes, and some are left over


@pytest.mark.parametrize("key, again", [
    (b'"format":"zellige",', b'"format":"zellige",'), (b'"dtype":"F32",', b'"\\u0064type":"F32",'),
    (b'"dense/fc.bias":', b'"dense/fc.bias":{},'), (b'\\"block\\":', b'\\"block\\":null,'),
    (b'\\"name\\":\\"victim\\",', b'\\"name\\":\\"other\\",'), (b'\\"threads\\":', b'\\"threads\\":1,'),
], ids=str)
def test_keys_that_stand_twice(key: bytes, again: bytes) -> None:
    text = GOOD[8:8 + LENGTH]
    assert key in text
    refuse(seal(text.replace(key, again + key, 1)), "stands twice")


@pytest.mark.parametrize("text", ['{"a":' * 50_000, "[" * 100_000, "NaN", '{"a": 1e999}',
                                  '{"a": "\\ud800"}', "[]", "1", "null", '""', "", "{"], ids=lambda text: text[:12])
@pytest.mark.parametrize("name", ["graph", "constants", "extra"])
def test_sections_that_are_no_objects(name: str, text: str) -> None:
    crafted = header()
    crafted["__metadata__"][name] = text
    refuse(sealed(crafted))


@pytest.mark.parametrize("change", [
    {"shape": [16]}, {"shape": [16, 17]}, {"shape": [17, 16]}, {"shape": [16, 8, 2]}, {"shape": [-16, -16]},
    {"shape": [True, 16]}, {"shape": [16.0, 16]}, {"shape": "16"}, {"shape": [1] * 9}, {"shape": [2**100, 16]},
    {"shape": [16, 0]}, {"shape": []}, {"dtype": "f64"}, {"dtype": "i32"}, {"dtype": "u8"}, {"dtype": ["f32"]},
    {"dtype": {}}, {"dtype": None}, {"block": None}, {"block": []}, {"block": [8, 8]}, {"block": [8, 8, 0]},
    {"block": [0, 8, 1]}, {"block": [4, 8, 1]}, {"block": [8, 4, 1]}, {"block": [16, 16, 1]}, {"block": [17, 8, 1]},
    {"block": [8, 8, 2]}, {"block": [8.0, 8, 1]}, {"block": [-8, -8, 1]}, {"block": "881"}, {"block": {}}, {"more": 1},
], ids=str)
def test_table_of_constants(change: dict[str, Any]) -> None:
    refuse(section(lambda table: table[WEIGHT].update(change), "constants"))


def test_table_against_graph_and_tensors() -> None:
    refuse(section(lambda table: table.pop(WEIGHT) and None, "constants"))
    refuse(section(lambda table: table.update(other=table.pop(WEIGHT)), "constants"))
    refuse(section(lambda table: table.update(other=table["fc.bias"]), "constants"))
    refuse(section(lambda table: table.update(other=None), "constants"))


def patched(name: str, content: bytes) -> bytes:
    """The good file with the beginning of one tensor's bytes overwritten."""
    crafted = header()
    start = crafted[name]["data_offsets"][0]
    return sealed(crafted, DATA[:start] + content + DATA[start + len(content):])


def test_numbers() -> None:
    for bits in range(256):
        if bits.bit_count() != 2 or bits > 15:
            refuse(patched(KEPT, bytes([bits])), "blocks")      # more or fewer than values, or past the end
    assert decode_graph(patched(KEPT, bytes([0b0110])))[0].constants[WEIGHT][0, 8] == 1.0
    for bad in (np.nan, np.inf, -np.inf):
        for name in (TENSOR, VALUES):
            refuse(patched(name, np.float32(bad).tobytes()), "NaN or infinity")
        refuse(patched("dense/wide", np.float64(bad).tobytes()), "NaN or infinity")
    refuse(patched("dense/flag", b"\2"), "booleans")


def edit(path: str, value: object) -> Callable[[Any], None]:
    """Set what stands at ``path`` (keys and positions between slashes) in a section."""
    def change(graph: Any) -> None:
        *route, last = [int(key) if key.isdigit() else key for key in path.split("/")]
        for key in route:
            graph = graph[key]
        graph[last] = value
    return change


@pytest.mark.parametrize("path, value", [
    ("nodes/0/inputs/1", "nobody"), ("nodes/0/inputs/0", "out"), ("nodes/0/inputs/0", "fc"), ("nodes/0/inputs", []),
    ("nodes/0/inputs/2", WEIGHT), ("nodes/0/shape", [1, 17]), ("nodes/0/shape", [1, 2**62]),
    ("nodes/0/shape", [1, 16.0]), ("nodes/0/dtype", "f16"), ("nodes/0/op", "system"), ("nodes/0/op", ["linear"]),
    ("nodes/0/op", "batch_norm"), ("nodes/0/name", "out"), ("nodes/0/name", "x"), ("nodes/0/name", WEIGHT),
    ("nodes/0/attributes", {"stride": [1, 1]}), ("nodes/0/attributes", None), ("nodes/0/epilogue", [[]]),
    ("nodes/0/epilogue", [{"op": "add", "attributes": {}, "operand": "out"}]),
    ("nodes/0/epilogue", [{"op": "add", "attributes": {}, "operand": 7}]), ("nodes/1/attributes/function", "system"),
    ("nodes/1/attributes/function", ["relu"]), ("nodes/1/attributes/slope", None), ("nodes/1/attributes/slope", 1),
    ("nodes/1/attributes/slope", "nan"), ("nodes/1/attributes/slope", {"a": []}),
    ("nodes", {}), ("nodes", []), ("nodes/0", None), ("inputs/0/shape", [1, 17]), ("inputs/0/shape", [0, 16]),
    ("inputs", []), ("outputs", []), ("outputs", ["nobody"]), ("outputs/0", 1), ("outputs/0", WEIGHT),
    ("input_tree", 1), ("input_tree", -1), ("input_tree", "0"), ("output_tree", {"tuple": 0}), ("output_tree", 2**70),
    ("output_tree", {"dict": [["a", 0], ["a", 0]]}), ("constants/0/shape", [1]), ("constants/0/name", "fc.bias"),
    ("name", 1), ("more", 1),
], ids=str)
def test_graphs(path: str, value: object) -> None:
    refuse(section(edit(path, value), "graph"))


def nested(depth: int) -> object:
    tree: object = 0
    for _ in range(depth):
        tree = {"list": [tree]}
    return tree


def test_a_tree_as_deep_as_json_goes() -> None:
    refuse(section(edit("output_tree", nested(200)), "graph"))


def bombs() -> list[bytes]:
    """Little files that speak of terabytes."""
    files = []
    for shape, block in [([2**20, 2**20], [8, 8, 1]), ([2**20, 2**20], [2**20, 2**20, 1]), ([2**39] * 2, [2**39, 1, 1]),
                         ([1, 1, 2**39], [1, 1, 2**39]), ([2**15, 2**15], [2**15, 2**15, 1])]:
        crafted = header()
        table = json.loads(crafted["__metadata__"]["constants"])
        table[WEIGHT].update(shape=shape, block=block)
        crafted["__metadata__"]["constants"] = json.dumps(table)
        del crafted[VALUES]
        crafted[VALUES] = {"dtype": "F32", "shape": [0], "data_offsets": [len(DATA), len(DATA)]}
        files.append(sealed(crafted))
    return files


def test_little_memory(tmp_path: Path) -> None:
    """A refusal takes a few times the file's own size."""
    path = tmp_path / "model.zlg"
    liars = [(2**40).to_bytes(8, "little") + GOOD[8:], (2**63).to_bytes(8, "little") + GOOD[8:]]
    for content in [*bombs(), *liars]:
        path.write_bytes(content)
        tracemalloc.start()
        try:
            with pytest.raises(FileFormatError):
                load_graph(path)
            assert tracemalloc.get_traced_memory()[1] < 2_000_000
        finally:
            tracemalloc.stop()


def test_a_long_file_that_is_none(tmp_path: Path) -> None:
    """A terabyte of nothing is refused by its first bytes."""
    with open(tmp_path / "model.zlg", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(FileFormatError, match=r"not a \.zlg file"):
        load_graph(tmp_path / "model.zlg")


def test_other_files(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"weight": np.ones((20, 20), np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(FileFormatError, match=r"other\.safetensors: not a \.zlg file"):
        load_graph(tmp_path / "other.safetensors")
    save_graph(victim(), tmp_path / "model.zlg")
    assert load_graph(tmp_path / "model.zlg")[1] == {}
