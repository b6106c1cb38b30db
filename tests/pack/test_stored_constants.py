"""Constants stay in the file they were loaded from: what happens to the file afterwards, and how little memory they take."""

import gc
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from zellige.errors import FileFormatError, ZelligeError
from zellige.graph.ir import Graph, StoredConstants, TensorType
from zellige.graph.operators import make_node
from zellige.pack import load_graph, save_graph
from zellige.pack.file import decode_graph, encode_graph

ROWS = 512
WEIGHTS = [f"weight{number}" for number in range(8)]


def chain(seed: int = 0) -> Graph:
    """Eight linear layers, 1 MiB each; every other one has lost half of its blocks."""
    numbers = np.random.default_rng(seed)
    x = TensorType((1, ROWS))
    nodes, constants, last = {}, {}, "x"
    for number, name in enumerate(WEIGHTS):
        weight = numbers.standard_normal((ROWS, ROWS), dtype=np.float32)
        if number % 2:
            weight *= np.kron(numbers.random((ROWS // 8, ROWS // 8)) < 0.5, np.ones((8, 8), np.float32))
        constants[name] = weight
        nodes[f"y{number}"] = make_node(f"y{number}", "linear", [last, name], [x, TensorType((ROWS, ROWS))])
        last = f"y{number}"
    return Graph("chain", {"x": x}, nodes, (last,), constants, {"tuple": [0]}, 0)


@pytest.fixture(scope="module")
def content() -> bytes:
    return b"".join(encode_graph(chain(), {}))


@pytest.fixture
def path(content: bytes, tmp_path: Path) -> Path:
    (tmp_path / "model.zlg").write_bytes(content)
    return tmp_path / "model.zlg"


def assert_whole(graph: Graph, content: bytes, folder: Path) -> None:
    """All constants are right, and saving gives the bytes of the file that was loaded."""
    for name, array in chain().constants.items():
        np.testing.assert_array_equal(graph.constants[name], array)
    save_graph(graph, folder / "again.zlg")
    assert (folder / "again.zlg").read_bytes() == content


def test_a_loaded_graph_is_saved_with_the_same_bytes(path: Path, content: bytes) -> None:
    graph, _ = load_graph(path)
    assert isinstance(graph.constants, StoredConstants)
    assert_whole(graph, content, path.parent)
    save_graph(graph, path)  # over the file that it reads
    assert path.read_bytes() == content
    assert_whole(graph, content, path.parent)


def test_a_file_that_is_replaced_or_removed_stays_what_it_was(path: Path, content: bytes) -> None:
    graph, _ = load_graph(path)
    save_graph(chain(seed=1), path)
    assert_whole(graph, content, path.parent)
    path.unlink()
    assert_whole(graph, content, path.parent)


def altered(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(-100, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def written_over(path: Path) -> None:
    path.write_bytes(b"".join(encode_graph(chain(seed=1), {})))


@pytest.mark.parametrize("happening", [altered, cut, emptied, written_over])
def test_a_file_that_is_altered_in_place_is_noticed(path: Path, happening) -> None:
    graph, _ = load_graph(path)
    happening(path)
    with pytest.raises(FileFormatError, match=r"model\.zlg was altered since it was loaded: .*load it$"):
        for name in WEIGHTS:
            np.testing.assert_array_equal(graph.constants[name], chain().constants[name])  # right as long as it is one
    (path.parent / "old.zlg").write_bytes(b"old")
    with pytest.raises(FileFormatError, match=r"model\.zlg was altered since it was loaded"):
        save_graph(graph, path.parent / "old.zlg")
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["model.zlg", "old.zlg"]
    assert (path.parent / "old.zlg").read_bytes() == b"old"


def test_a_file_that_changes_between_checksum_and_writing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save reads twice: for its checksum, and to write. What changes in between leaves nothing behind."""
    graph, _ = load_graph(path)
    chunks = encode_graph(graph, {})
    altered(path)
    with pytest.raises(FileFormatError, match="was altered"):
        b"".join(chunks)


def test_a_disk_that_fails_later(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, _ = load_graph(path)

    def fail(*_: object) -> int:
        raise OSError(5, os.strerror(5))

    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", fail)
        with pytest.raises(ZelligeError, match=r"can't read .*model\.zlg: Input/output error"):
            graph.constants[WEIGHTS[0]]
        with pytest.raises(ZelligeError, match=r"can't read .*model\.zlg: Input/output error"):
            save_graph(graph, path.parent / "again.zlg")
    assert [entry.name for entry in path.parent.iterdir()] == ["model.zlg"]


def test_types_are_known_without_reading(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, _ = load_graph(path)
    monkeypatch.setattr(os, "preadv", None)
    assert graph.type_of(WEIGHTS[0]) == TensorType((ROWS, ROWS)) and str(graph) == str(chain())
    assert list(graph.constants) == WEIGHTS and len(graph.constants) == 8
    assert WEIGHTS[0] in graph.constants and "x" not in graph.constants


def test_the_file_is_closed_when_nobody_holds_it(path: Path) -> None:
    def open_files() -> list[str]:
        return [link for number in os.listdir("/proc/self/fd") if os.path.lexists(link := f"/proc/self/fd/{number}")
                and os.readlink(link) == str(path)]

    graph, _ = load_graph(path)
    assert len(open_files()) == 1
    del graph
    gc.collect()
    assert open_files() == []
    path.write_bytes(b"no network")
    for _ in range(3):
        with pytest.raises(FileFormatError):
            load_graph(path)
    gc.collect()
    assert open_files() == []


def test_a_forked_child_reads_by_itself(path: Path) -> None:
    graph, _ = load_graph(path)
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            right = all(np.array_equal(graph.constants[name], array) for name, array in chain().constants.items())
            os._exit(0 if right else 1)
        children.append(child)
    for name, array in chain().constants.items():
        np.testing.assert_array_equal(graph.constants[name], array)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]


def test_constants_take_memory_one_at_a_time(path: Path) -> None:
    """8 MiB of constants: loading and saving hold a piece of 1 MiB and a layer with its parts, reading one layer of 1 MiB."""
    tracemalloc.start()
    try:
        graph, _ = load_graph(path)
        loading = tracemalloc.get_traced_memory()[1]
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for name in WEIGHTS:
            assert graph.constants[name].nbytes == 1 << 20
        reading = tracemalloc.get_traced_memory()[1] - kept
        tracemalloc.reset_peak()
        save_graph(graph, path.parent / "again.zlg")
        saving = tracemalloc.get_traced_memory()[1] - kept
    finally:
        tracemalloc.stop()
    assert kept < 300_000 and loading < 4 << 20 and reading < 4 << 20 and saving < 4 << 20


def test_constants_declared_in_another_order_are_stored_in_the_graphs(content: bytes) -> None:
    graph, _ = decode_graph(content)
    assert isinstance(graph.constants, StoredConstants)
    backwards = graph.constants.ordered(reversed(WEIGHTS))
    assert list(backwards) == WEIGHTS[::-1]
    np.testing.assert_array_equal(backwards[WEIGHTS[1]], graph.constants[WEIGHTS[1]])
