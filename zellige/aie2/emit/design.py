"""A tile program as MLIR-AIE, and back: tiles, buffers, locks, flows, cores and the sequence.

Names in the text are those of the program. What is read is written anew and compared, so that nothing in a file is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import NoReturn

from zellige.aie2.device import WORD
from zellige.aie2.emit.core import KERNEL, core_operation, end, kernel_operands, memref, read_core
from zellige.aie2.emit.operation import Attribute, FunctionType, Integer, Operation, region, write
from zellige.aie2.emit.parse import parse
from zellige.aie2.emit.tasks import DIRECTIONS, read_integer, read_sequence, sequence_operation
from zellige.aie2.program import Buffer, Channel, Core, Flow, HostBuffer, Lock, Program, Tile
from zellige.errors import CompileError, FileFormatError

DMA = Integer(1)
"""The bundle of a tile's DMA, by its number in MLIR-AIE."""

NAME = re.compile(r"(?!(tile_|core_|task|host)[0-9]+)[A-Za-z_][A-Za-z0-9_$.-]*")
"""Names that MLIR takes, and that no other value has."""

STRING = re.compile(r"[^\x00-\x1f\x7f\"\\]+")


def design(program: Program) -> str:
    """The MLIR text of a program. Raises ``CompileError`` for what can't be written."""
    _check_names(program)
    tiles = _tiles(program)
    tile_name = {tile: f"tile_{tile.column}_{tile.row}" for tile in tiles}
    types = {one.name: memref(one.size) for one in program.buffers}
    operations = [Operation("aie.tile", (), ((name, "index"),), {"col": Integer(tile.column), "row": Integer(tile.row)})
                  for tile, name in tile_name.items()]
    operations += [Operation("aie.buffer", ((tile_name[one.tile], "index"),), ((one.name, types[one.name]),),
                             {"address": Integer(one.address), "sym_name": one.name}) for one in program.buffers]
    operations += [Operation("aie.lock", ((tile_name[one.tile], "index"),), ((one.name, "index"),),
                             {"lockID": Integer(one.number), "init": Integer(one.initial), "sym_name": one.name})
                   for one in program.locks]
    operations += [operation for flow in program.flows for operation in _flow(flow, tile_name)]
    places = {tile: (name, "index") for tile, name in tile_name.items()}
    operations += [core_operation(core, places[core.tile], types) for core in program.cores]
    operations += [sequence_operation(program, {one.name: (one.name, types[one.name]) for one in program.buffers}, places), end()]
    device = Operation("aie.device", (), (), {"device": program.device, "sym_name": program.name}, (), region(operations))
    return write(Operation("builtin.module", (), (), {}, (), region([*_kernels(program.cores, types), device])))


def _kernels(cores: Iterable[Core], types: Mapping[str, str]) -> Iterator[Operation]:
    """The declaration of the kernel. Raises ``CompileError`` if cores call it with buffers of different sizes."""
    operands = sorted({kernel_operands(core, dict(types)) for core in cores})
    if len(operands) > 1:
        raise CompileError(f"all cores call one kernel: expected buffers of the same sizes, got {operands[0]} and {operands[1]}")
    for one in operands:
        attributes: dict[str, Attribute] = {"function_type": FunctionType(one), "sym_name": KERNEL, "sym_visibility": "private"}
        yield Operation("func.func", (), (), attributes, (), ())


def _check_names(program: Program) -> None:
    values = [*(one.name for one in program.buffers), *(one.name for one in program.locks)]
    for name in values:
        if not NAME.fullmatch(name):
            raise CompileError(f"{name!r} can't be a name in MLIR: expected letters, digits and any of _ $ . - with a letter first")
    strings = [*(one.name for one in program.host), *program.tasks]
    for name in (program.name, *strings):
        if not STRING.fullmatch(name):
            raise CompileError(f"{name!r} can't be a name: expected printable characters without quotes and backslashes")
    names = [*values, *strings]
    if len(set(names)) != len(names):
        raise CompileError(f"two parts of the program are called {next(name for name in names if names.count(name) > 1)}")
    sized: list[Buffer | HostBuffer] = [*program.buffers, *program.host]
    for one in sized:
        if one.size % WORD:
            raise CompileError(f"{one}: expected a size that is a multiple of {WORD} bytes")


def _tiles(program: Program) -> list[Tile]:
    """All tiles that are named, in order."""
    channels = [channel for flow in program.flows for channel in (flow.source, *flow.destinations)]
    channels += [task.channel for task in program.tasks.values()]
    parts: list[Buffer | Lock | Channel | Core] = [*program.buffers, *program.locks, *channels, *program.cores]
    return sorted({one.tile for one in parts})


def _flow(flow: Flow, tile_name: Mapping[Tile, str]) -> list[Operation]:
    def end_of(channel: Channel, which: str) -> dict[str, Attribute]:
        return {f"{which}bundle": DMA, f"{which}channel": Integer(channel.number)}

    source, place = flow.source, {tile: (name, "index") for tile, name in tile_name.items()}
    if flow.source.direction != "out" or any(one.direction != "in" for one in flow.destinations):
        raise CompileError(f"a flow goes from what is sent to what is received: {flow}")
    if flow.packet is None:
        return [Operation("aie.flow", (place[source.tile], place[one.tile]), (), end_of(source, "source_") | end_of(one, "dest_"))
                for one in flow.destinations]
    ends = [Operation("aie.packet_source", (place[source.tile],), (), end_of(source, "")),
            *(Operation("aie.packet_dest", (place[one.tile],), (), end_of(one, "")) for one in flow.destinations), end()]
    return [Operation("aie.packet_flow", (), (), {"ID": Integer(flow.packet, "i8")}, (), region(ends))]


class _Reader:
    """Reads a design from one file."""

    def __init__(self, file: str):
        self.file = file
        self.tiles: dict[str, Tile] = {}

    def refuse(self, operation: Operation, expected: str) -> NoReturn:
        raise FileFormatError(f"{self.file}:{operation.line}: expected {expected}, got {operation.name}")

    def number(self, operation: Operation, name: str) -> int:
        return read_integer(operation, name, self.refuse)

    def string(self, operation: Operation, name: str) -> str:
        value = operation.attributes.get(name)
        if not isinstance(value, str):
            self.refuse(operation, f"a string {name!r}")
        return value

    def tile(self, operation: Operation, at: int = 0) -> Tile:
        if at >= len(operation.operands) or operation.operands[at][0] not in self.tiles:
            self.refuse(operation, "a tile that has been named before")
        return self.tiles[operation.operands[at][0]]

    def result(self, operation: Operation) -> tuple[str, str]:
        if len(operation.results) != 1:
            self.refuse(operation, "one result")
        return operation.results[0]

    def channel(self, operation: Operation, which: str, direction: str, at: int = 0) -> Channel:
        return Channel(self.tile(operation, at), direction, self.number(operation, f"{which}channel"))  # type: ignore[arg-type]

    def buffer(self, operation: Operation) -> Buffer:
        name, type = self.result(operation)
        words = type.removeprefix("memref<").removesuffix("xi32>")
        if not words.isdecimal():
            self.refuse(operation, f"a buffer of words, not {type}")
        return Buffer(name, self.tile(operation), self.number(operation, "address"), WORD * int(words))

    def lock(self, operation: Operation) -> Lock:
        name, _ = self.result(operation)
        return Lock(name, self.tile(operation), self.number(operation, "lockID"), self.number(operation, "init"))

    def flows(self, operations: Iterable[Operation]) -> Iterator[Flow]:
        """Flows in a row that have one source and no number are one flow to many."""
        streams = ((one, self.channel(one, "source_", "out") if one.name == "aie.flow" else None) for one in operations)
        for source, run in groupby(streams, key=lambda pair: pair[1]):
            together = [one for one, _ in run]
            if source is not None:
                yield Flow(source, tuple(self.channel(one, "dest_", "in", 1) for one in together))
            else:
                yield from map(self.packet_flow, together)

    def packet_flow(self, operation: Operation) -> Flow:
        ends = operation.region[0].operations if operation.region else ()
        sources = [self.channel(one, "", DIRECTIONS[1]) for one in ends if one.name == "aie.packet_source"]
        if len(sources) != 1:
            self.refuse(operation, "one source")
        return Flow(sources[0], tuple(self.channel(one, "", "in") for one in ends if one.name == "aie.packet_dest"),
                    self.number(operation, "ID"))

    def program(self, module: Operation) -> Program:
        inside = module.region[0].operations if module.region else ()
        devices = [one for one in inside if one.name == "aie.device"]
        if len(devices) != 1 or not devices[0].region:
            self.refuse(module, "a module with one device")
        parts: dict[str, list[Operation]] = {}
        for one in devices[0].region[0].operations:
            parts.setdefault("aie.flow" if one.name == "aie.packet_flow" else one.name, []).append(one)
        for one in parts.get("aie.tile", []):
            self.tiles[self.result(one)[0]] = Tile(self.number(one, "col"), self.number(one, "row"))
        if len(sequences := parts.get("aie.runtime_sequence", [])) != 1:
            self.refuse(devices[0], "a device with one sequence")
        tasks, sequence, host = read_sequence(sequences[0], self.tiles, self.refuse)
        return Program(
            self.string(devices[0], "sym_name"), self.string(devices[0], "device"),
            tuple(map(self.buffer, parts.get("aie.buffer", []))), host, tuple(map(self.lock, parts.get("aie.lock", []))),
            tuple(self.flows(parts.get("aie.flow", []))),
            tuple(read_core(one, self.tile(one), self.refuse) for one in parts.get("aie.core", [])), tasks, sequence, {}, {})


def read_design(text: str, file: str) -> Program:
    """The program that a text stands for, without data, inputs and outputs. ``file`` is its name in errors.

    Raises ``FileFormatError`` with the line that can't be read, or that isn't what the program would be written as.
    """
    program = _Reader(file).program(parse(text, file))
    try:
        again = design(program)
    except CompileError as error:
        parts: list[Buffer | Lock | HostBuffer] = [*program.buffers, *program.locks, *program.host]
        named = [*program.tasks, *(one.name for one in parts)]
        name = max((name for name in named if name in str(error)), key=len, default=program.name)
        raise FileFormatError(f"{file}:{_line(text, name)}: the program that it describes can't be one: {error}") from None
    except KeyError as error:
        name = str(error.args[0])
        raise FileFormatError(f"{file}:{_line(text, name)}: no buffer or tile is called {name!r}") from None
    for number, (came, expected) in enumerate(zip(text.split("\n"), again.split("\n"), strict=False), 1):
        if came != expected:
            raise FileFormatError(f"{file}:{number}: expected {expected.strip()!r}, got {came.strip()!r}")
    if text != again:
        end = min(text.count("\n"), again.count("\n")) + 1
        raise FileFormatError(f"{file}:{end}: expected {len(again)} characters in all, got {len(text)}")
    return program


def _line(text: str, name: str) -> int:
    """Where a text speaks of something: the last line that makes a value of that name, or the first that names it."""
    lines = list(enumerate(text.split("\n"), 1))
    made = [number for number, line in lines if line.lstrip().startswith(f"%{name} = ")]
    mention = re.compile(rf'"{re.escape(name)}"|%{re.escape(name)}(?![A-Za-z0-9_$.-])')
    return made[-1] if made else next((number for number, line in lines if mention.search(line)), 1)
