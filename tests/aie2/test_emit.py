"""Programs as files: read back as they were, checked by LLVM's tools, and every change found."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hand_made import Layer
from lowered import POWERS, residual_block
from quantized_layers import quantized

from zellige.aie2.device import DEVICES
from zellige.aie2.emit import check
from zellige.aie2.emit.design import design, read_design
from zellige.aie2.emit.files import DESIGN, emit, read
from zellige.aie2.emit.manifest import NAME, FileEntry, Manifest, read_manifest
from zellige.aie2.lowering.lower import lower
from zellige.aie2.overlay import overlay
from zellige.aie2.program import HostBuffer, Program, Start
from zellige.errors import CompileError, FileFormatError

LAYERS = [Layer(), Layer(rows=1, columns=2, device="ve2802"), Layer(rows=5, columns=4, device="paper")]
needs_mlir = pytest.mark.skipif(check.mlir_opt() is None,
                                reason="emitted MLIR is not checked: there is no mlir-opt (Debian: apt-get install mlir-19-tools)")


@pytest.fixture(scope="module")
def program() -> Program:
    return Layer().program()


@pytest.fixture(scope="module")
def emitted(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("emitted") / "hand made"
    emit(program, directory)
    return directory


@pytest.fixture
def copy(emitted: Path, tmp_path: Path) -> Path:
    """The emitted directory, to be changed."""
    return Path(shutil.copytree(emitted, tmp_path / "copy"))


def assert_same(one: Program, other: Program) -> None:
    """Equal in every respect: numpy's arrays have no truth value of their own."""
    assert str(one) == str(other)
    assert replace(one, host=()) == replace(other, host=())
    for left, right in zip(one.host, other.host, strict=True):
        assert replace(left, data=None) == replace(right, data=None) and (left.data is None) == (right.data is None)
        assert left.data is None or np.array_equal(left.data.reshape(-1).view(np.uint8), right.data)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: str(layer.on))
def test_a_program_comes_back(layer: Layer, tmp_path: Path) -> None:
    made = layer.program()
    emit(made, tmp_path / "files")
    assert_same(made, read(tmp_path / "files"))


def test_the_same_program_is_the_same_bytes(emitted: Path, tmp_path: Path) -> None:
    emit(Layer().program(), tmp_path / "again")
    files, again = ({path.relative_to(where).as_posix(): path.read_bytes() for path in where.rglob("*") if path.is_file()}
                    for where in (emitted, tmp_path / "again"))
    assert files == again
    assert set(files) >= {NAME, DESIGN, "kernels/step.cc", "data/2.bin"}


def test_nothing_is_overwritten(tmp_path: Path, program: Program) -> None:
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(CompileError, match="expected a new or an empty directory"):
        emit(program, tmp_path)


def first_task(program: Program, **changed: object) -> Program:
    name, task = next(iter(program.tasks.items()))
    return replace(program, tasks={**program.tasks, name: replace(task, **changed)})


@pytest.mark.parametrize("change, message", [
    (lambda p: replace(p, name='a "name"'), "can't be a name"),
    (lambda p: replace(p, buffers=(replace(p.buffers[0], name="0"), *p.buffers[1:])), "'0' can't be a name in MLIR"),
    (lambda p: replace(p, locks=(replace(p.locks[0], name="task3"), *p.locks[1:])), "'task3' can't be a name in MLIR"),
    (lambda p: replace(p, host=(*p.host, HostBuffer("x", 4))), "two parts of the program are called x"),
    (lambda p: replace(p, host=(*p.host, HostBuffer("z", 3))), "expected a size that is a multiple of 4"),
    (lambda p: replace(p, sequence=p.sequence[1:]), "is never started"),
    (lambda p: replace(p, sequence=p.sequence[::-1]), "is awaited before it is started"),
    (lambda p: first_task(p, descriptors=(replace(p.tasks["layer/x0"].descriptors[0], offset=2),)), "begins at byte 2 of x"),
    (lambda p: first_task(p, descriptors=(replace(p.tasks["layer/x0"].descriptors[0], dimensions=()),)), "expected a dimension"),
])
def test_what_cannot_be_written_is_refused(change: object, message: str, program: Program) -> None:
    with pytest.raises(CompileError, match=re.escape(message)):
        design(change(program))


def test_tasks_start_again_while_their_descriptors_are_theirs(program: Program) -> None:
    again = replace(program, sequence=(*program.sequence, Start("layer/x0")))
    assert read_design(design(again), "design").sequence == again.sequence
    tile = program.tasks["layer/x0"].channel.tile
    name, task = next((name, task) for name, task in program.tasks.items() if task.channel.tile == tile and name != "layer/x0")
    taken = replace(task, descriptors=tuple(replace(one, number=0) for one in task.descriptors))
    with pytest.raises(CompileError, match="the task layer/x0 is started once more, but descriptor 0 of"):
        design(replace(again, tasks={**program.tasks, name: taken}))


# What is changed in the design, and the message, with the line where it stands. Checksums are made to fit: the reader is tested.
CHANGES = [
    ("%core0.0.weights.0 =", "%core0.0.weights.0 :=", "expected an operation"),
    ("address = 0 : i32", "address = 0", "expected an attribute"),
    ('"aie.flow"(%tile_0_0', '"aie.flow"(%tile_9_9', "expected a tile that has been named before"),
    ('"core0.0.weights.0"} : (index) -> memref<', '"core0.0.weights.0"} : (index) -> tensor<', "expected a buffer of words"),
    ('{action = 2 : i32, value = 1 : i32}', '{action = 0 : i32, value = 1 : i32}', "expected a lock of the core's rings"),
    ("value = 4294967295 : index", "value = 7 : index", "expected a loop that runs for ever"),
    ('"arith.xori"(', '"arith.andi"(', "expected '"),
    ("direction = 1 : i32", "direction = 3 : i32", "expected direction 0 or 1"),
    ("sizes = array<i64: 4, 8>", "sizes = array<i64: 4>", "expected as many strides as sizes"),
    ("len = 32 : i32", "len = 33 : i32", "expected '"),
    ('"aiex.dma_start_task"(%task0)', '"aiex.dma_start_task"(%task99)', "expected a task that has been configured"),
    ('callee = @step', 'callee = @stop', "expected '"),
    ("^bb1:", "^bb7:", "expected '"),
    ('sym_visibility = "private"', 'sym_visibility = "nested"', "expected '"),
    ('"aie.end"() : () -> ()\n', '"aie.end"() : () -> ()\n// done\n', "expected an operation"),
]


@pytest.mark.parametrize("before, after, message", CHANGES, ids=[before for before, _, _ in CHANGES])
def test_a_design_that_says_something_else(before: str, after: str, message: str, emitted: Path) -> None:
    text = (emitted / DESIGN).read_text()
    changed = text.replace(before, after, 1)
    assert changed != text
    line = next(at for at, (one, other) in enumerate(zip(text.split("\n"), changed.split("\n"), strict=False), 1) if one != other)
    with pytest.raises(FileFormatError, match=re.escape(message)) as found:
        read_design(changed, "design.mlir")
    where = re.match(r"design\.mlir:(\d+): ", str(found.value))
    assert where is not None
    assert message.startswith(("expected a loop", "expected '", "expected a lock")) or abs(int(where[1]) - line) <= 3


def changed_lines(text: str) -> Iterator[str]:
    """Designs of which a line is gone, there twice, or has another number."""
    lines = text.split("\n")
    for at, line in enumerate(lines):
        number = re.search(r"\d+", line)
        other = [] if number is None else [line[: number.start()] + str(int(number[0]) + 1) + line[number.end() :]]
        for instead in ([], [line, line], other):
            yield "\n".join([*lines[:at], *instead, *lines[at + 1 :]])
    yield text + "\n"


@pytest.mark.full
def test_every_refusal_of_a_design_has_a_line() -> None:
    text = design(Layer(1, 2, steps=2).program())
    count, designs, refused = text.count("\n"), 0, 0
    for changed in changed_lines(text):
        designs += 1
        try:
            read_design(changed, "design.mlir")
        except FileFormatError as error:
            refused += 1
            where = re.match(r"design\.mlir:(\d+): ", str(error))
            assert where is not None and 1 <= int(where[1]) <= count + 3, error
    assert refused > designs / 2


@pytest.mark.parametrize("line, times, message", [
    ('%core0.0.results.0 = "aie.buffer"', 2, "two parts of the program are called core0.0.results.0"),
    ('%memory0.results0.0 = "aie.buffer"', 0, "no buffer or tile is called 'memory0.results0.0'"),
    ('"aiex.dma_start_task"(%task2)', 0, "the task layer/x out 0 is never started"),
])
def test_what_cannot_be_a_program_is_named_with_its_line(line: str, times: int, message: str, emitted: Path) -> None:
    lines = (emitted / DESIGN).read_text().split("\n")
    at = next(number for number, one in enumerate(lines) if one.lstrip().startswith(line))
    changed = [*lines[:at], *[lines[at]] * times, *lines[at + 1 :]]
    with pytest.raises(FileFormatError, match=re.escape(message)) as found:
        read_design("\n".join(changed), "design.mlir")
    where = int(re.match(r"design\.mlir:(\d+): ", str(found.value))[1])
    name = message.replace("is never started", "").split("called ")[-1].removeprefix("the task ").strip("' ")
    assert name in changed[where - 1]
    assert times == 0 or where == at + 2


@pytest.mark.parametrize("file", [DESIGN, "data/2.bin", "kernels/step.cc"])
def test_a_file_changed_by_hand_is_named(file: str, copy: Path) -> None:
    content = bytearray((copy / file).read_bytes())
    at = len(content) * 3 // 4
    content[at] ^= 1
    (copy / file).write_bytes(content)
    with pytest.raises(FileFormatError, match=rf"{re.escape(str(copy / file))}: bytes (\d+) to (\d+)") as found:
        read(copy)
    begin, end = map(int, re.search(r"bytes (\d+) to (\d+)", str(found.value)).groups())
    assert begin <= at <= end


@pytest.mark.parametrize("file", [NAME, DESIGN, "data/2.bin", "kernels/rescale.h"])
def test_a_file_that_is_missing_or_cut_is_named(file: str, copy: Path) -> None:
    content = (copy / file).read_bytes()
    (copy / file).write_bytes(content[:-1])
    with pytest.raises(FileFormatError, match=re.escape(str(copy / file))):
        read(copy)
    (copy / file).unlink()
    with pytest.raises(FileFormatError, match=re.escape(str(copy / file))):
        read(copy)


@pytest.mark.parametrize("change, message", [
    (lambda m: m.update(version=1), "format: expected 'zellige aie2', version 2"),
    (lambda m: m.pop("device"), "the manifest: expected the keys format, version, program, device"),
    (lambda m: m.update(program=3), "program: expected a value of type str, got 3"),
    *((lambda m, key=key, value=value: m[key].update(x=value) if isinstance(m[key], dict) else m.update({key: value}),
       f"{key}: expected what was written, with SHA-256 ") for key, value in (("device", "npu2"), ("inputs", ""), ("outputs", ""),
                                                                               ("program", "other"), ("host", []))),
    (lambda m: m["files"].pop(DESIGN), "files: expected what was written"),
    (lambda m: m["digests"].update(inputs="0"), "inputs: expected what was written, with SHA-256 0, got"),
    (lambda m: m.update(digests=["0"]), "digests: expected a value of type dict"),
    (lambda m: m["host"][0].update(size="4"), "host[0].size: expected a value of type int, got '4'"),
    (lambda m: m["files"][DESIGN].pop("parts"), "files.design.mlir: expected the keys size, sha256, parts"),
])
def test_a_manifest_changed_by_hand_is_refused(change: object, message: str, copy: Path) -> None:
    content = json.loads((copy / NAME).read_text())
    change(content)
    (copy / NAME).write_text(json.dumps(content, indent=1))
    with pytest.raises(FileFormatError, match=re.escape(f"{copy / NAME}: {message}")):
        read(copy)


@pytest.mark.parametrize("text, message", [
    ('{\n "format": ,\n}', ":2: expected JSON"), ("[]", ": the manifest: expected a value of type dict"),
    ("é".encode("latin-1"), ": expected UTF-8")])
def test_a_manifest_that_is_none(text: str | bytes, message: str, copy: Path) -> None:
    (copy / NAME).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FileFormatError, match=re.escape(f"{copy / NAME}{message}")):
        read(copy)


def resealed(directory: Path, **changed: object) -> None:
    """Other entries in a manifest, with checksums that fit."""
    manifest: Manifest = replace(read_manifest(directory), **changed)
    files = {name: FileEntry.of((directory / name).read_bytes()) for name in manifest.files}
    (directory / NAME).write_text(replace(manifest, files=files).text(), encoding="utf-8")


@pytest.mark.parametrize("key", ["device", "program"])
def test_a_manifest_of_another_design_is_refused(key: str, copy: Path) -> None:
    resealed(copy, **{key: "npu2"})
    with pytest.raises(FileFormatError, match=f"{key}: expected what design.mlir has"):
        read(copy)


def test_data_of_another_size_is_refused(copy: Path) -> None:
    (copy / "data/2.bin").write_bytes(b"1234")
    resealed(copy)
    with pytest.raises(FileFormatError, match=r"manifest\.json: host: expected \d+ bytes for packet0 in data/2\.bin"):
        read(copy)


@needs_mlir
@pytest.mark.parametrize("layer", LAYERS[:2], ids=lambda layer: str(layer.on))
def test_llvm_accepts_what_is_emitted(layer: Layer) -> None:
    check.check(design(layer.program()), "design.mlir")


@needs_mlir
def test_llvm_accepts_a_lowered_network() -> None:
    """With residuals, pools, a concatenation, parts, and packets of several rows from one column."""
    program = lower(quantized(residual_block(), POWERS), overlay(DEVICES["npu1"], 3, 2))
    assert any(flow.packet for flow in program.flows) and len(program.tasks) > 50
    check.check(design(program), "design.mlir")


# What is broken, and what LLVM says of it: by the dialect's description first, then by its own rules.
BROKEN = [
    ("col = 0 : i32, ", "", "attribute \"col\" is expected but not provided"),
    ('"aie.lock"(%tile_0_2)', '"aie.locke"(%tile_0_2)', "unregistered operation 'aie.locke'"),
    ('"core0.0.accumulators"} : (index) -> memref<', '"core0.0.accumulators"} : (index) -> vector<', "expects different type"),
    ("dest_bundle = 1", "dest_bundle = 7", "expected '1 : i32' but got '7 : i32'"),
    ("direction = 1 : i32", "direction = 2 : i32", "does not satisfy the constraint"),
    ("repeat_count = 3 : i32, ", "", 'attribute "repeat_count" is expected but not provided'),
    ("sizes = array<i64: 4, 8>", "sizes = 4 : i32", "expected base attribute 'builtin.dense_array'"),
    ('"aie.use_lock"(%memory0.activations.empty)', '"aie.use_lock"()', "expected 0 operand types but had 1"),
    ('"aiex.dma_start_task"(%task0) : (index)', '"aiex.dma_start_task"(%task0, %task0) : (index, index)',
     "op expects exactly 1 operands, but got 2"),
    ('"aiex.dma_start_task"(%task0)', '"aiex.dma_start_task"(%task1)', "operand #0 does not dominate this use"),
    ('      "aie.end"() : () -> ()\n', "", "block with no terminator"),
    ("[^bb1]", "[^bb9]", "reference to an undefined block"),
    ("callee = @step", "callee = @stop", "'stop' does not reference a valid function"),
    ('"memref.load"(', '"memref.store"(', "'memref.store' op"),
    ("}) {task", "}) {{task", "expected attribute name"),
]


@needs_mlir
@pytest.mark.parametrize("before, after, message", BROKEN, ids=[before for before, _, _ in BROKEN])
def test_llvm_refuses_what_is_broken(before: str, after: str, message: str, emitted: Path) -> None:
    text = (emitted / DESIGN).read_text()
    assert before in text
    with pytest.raises(FileFormatError, match=re.escape(message)) as found:
        check.check(text.replace(before, after, 1), "design.mlir")
    assert str(found.value).startswith("design.mlir:")


def test_without_llvm_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CompileError, match=r"there is none: install it \(Debian: apt-get install mlir-19-tools\)"):
        check.check("", "design.mlir")
