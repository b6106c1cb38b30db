"""A program made by hand: one pointwise layer on an overlay, with what it should compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from zellige.aie2.device import DEVICES
from zellige.aie2.overlay import TO_ALL, Overlay, fixed_parts, memory_shares, overlay, results_output
from zellige.aie2.packet import GROUP, PRODUCT, Header, Packet, decode, packet_size
from zellige.aie2.program import Await, Channel, Descriptor, HostBuffer, Program, Start, Task, Tile
from zellige.aie2.tensor import HostValue
from zellige.errors import CompileError
from zellige.graph.fixed_point import Rescale, saturate


def step(packet: np.ndarray, activations: np.ndarray, result: np.ndarray | None, accumulators: np.ndarray) -> None:
    """The kernel for packets of products in one part, as slowly and plainly as it can be said."""
    parts = decode(packet)
    header, tap = parts.header, 0
    if result is None:
        raise CompileError("no room for a result")
    for group, count in enumerate(parts.counts):
        for row in range(header.rows):
            for x in range(header.width):
                total = parts.bias[group].astype(np.int64)
                for one in range(tap, tap + count):
                    at = 8 * (int(parts.offsets[one]) + row * header.stride * header.line + x)
                    total = total + activations[at : at + 8].astype(np.int64) @ parts.blocks[one].astype(np.int64)
                rescale = Rescale((parts.multiplier[group].astype(np.int64),), parts.shift[group].astype(np.int64))
                at = 8 * ((row * header.groups + group) * header.width + x)
                result[at : at + 8] = saturate(rescale([total]), header.low, header.high)
        tap += count


def cycles(packet: Packet) -> float:
    header = packet.header
    return float(len(packet.offsets) * header.rows * header.width / 4 + 20 * header.groups)


Chain = tuple[Descriptor, ...]


def _turns(rings: Sequence[Chain]) -> Chain:
    """The first slots of all rings, then the second."""
    return tuple(ring[slot] for slot in (0, 1) for ring in rings)


def repeated(program: Program, phases: Sequence[str]) -> Program:
    """A layer's program, one time after another, as phases of those names. Packets take the slots of rings in turn."""
    tasks: dict[str, Task] = {}
    order: list[Start | Await] = []
    for turn, phase in enumerate(phases):
        for task in program.tasks.values():
            chain = tuple(replace(one, buffer=one.buffer.replace("weights.0", f"weights.{turn % 2}")) for one in task.descriptors)
            name = task.name.replace("layer", phase)
            tasks[name] = replace(task, name=name, descriptors=chain)
            order.append(Start(name))
        order += [Await(task.replace("layer", phase)) for task in program.tasks]
    return replace(program, tasks=tasks, sequence=tuple(order))


@dataclass(frozen=True)
class Layer:
    """A pointwise layer of ``groups`` × 8 inputs and as many outputs a row of cores; tiles of ``height`` × ``width`` pixels."""

    rows: int = 2
    columns: int = 2
    steps: int = 4
    groups: int = 2
    height: int = 2
    width: int = 4
    device: str = "npu1"

    @property
    def on(self) -> Overlay:
        return overlay(DEVICES[self.device], self.rows, self.columns)

    @property
    def object(self) -> int:
        """Words of a tile of activations, and of one of results."""
        return self.height * self.groups * self.width * 2

    def x(self) -> np.ndarray:
        """[rows][groups][width][8]"""
        shape = (self.steps * self.height, self.groups, self.columns * self.width, GROUP)
        return np.random.default_rng(0).integers(-128, 128, shape, np.int8)

    def weight(self) -> np.ndarray:
        """[rows of cores][output groups][input groups][inputs][outputs]; output group 1 has no tap of input group 0."""
        found = np.random.default_rng(1).integers(-8, 8, (self.rows, self.groups, self.groups, GROUP, GROUP), np.int8)
        found[:, 1 % self.groups, 0] = 0
        return found

    def result(self) -> np.ndarray:
        """[rows][groups of all rows of cores][width][8]"""
        x, weight = self.x().astype(np.int64), self.weight().astype(np.int64)
        total = np.einsum("hgxi,rogij->hroxj", x, weight) + 5
        total = total.reshape(len(x), self.rows * self.groups, self.columns * self.width, GROUP)
        return np.clip((3 * total + (1 << 7)) >> 8, 0, 127).astype(np.int8)

    def packet(self, row: int) -> Packet:
        groups, taps, blocks = self.groups, [], []
        counts = np.zeros(groups, np.uint16)
        for output in range(groups):
            for source in range(groups):
                if self.weight()[row, output, source].any():
                    taps.append(source * self.width)
                    blocks.append(self.weight()[row, output, source])
                    counts[output] += 1
        header = Header(packet_size(PRODUCT, groups, len(taps)), PRODUCT, self.steps, 1, 1, groups, self.height, self.width,
                        groups, self.width, 1, 1, 1, 0, 127)  # fmt: skip
        full = [np.full((groups, GROUP), value, np.int32) for value in (5, 3, 0, 8)]
        return Packet(header, counts, np.array(taps, np.uint16), np.array(blocks), *full, np.zeros(0, np.int8))

    def program(self) -> Program:
        """The layer as the phase ``layer``."""
        buffers, locks, flows, cores = fixed_parts(self.on)
        packets = [self.packet(row).encode() for row in range(self.rows)]
        host = [HostBuffer("x", self.x().size), HostBuffer("y", self.result().size)]
        host += [HostBuffer(f"packet{row}", packet.size, packet) for row, packet in enumerate(packets)]
        tasks = [*self._activations(), *self._packets([packet.size for packet in packets]), *self._results()]
        away = [task for task in tasks if task.channel.tile.row == 0 and task.channel.direction == "in"]
        order = (*(Start(task.name) for task in tasks), *(Await(task.name) for task in away))
        inputs, outputs = {"x": self._value("x", self.groups)}, {"y": self._value("y", self.rows * self.groups)}
        return Program("hand made", self.device, buffers, tuple(host), locks, flows, cores, {task.name: task for task in tasks},
                       order, inputs, outputs)  # fmt: skip

    def _value(self, buffer: str, groups: int) -> str:
        """A value that fills a host buffer."""
        height, width = self.steps * self.height, self.columns * self.width
        lanes = tuple(range(GROUP * groups))
        return str(HostValue(buffer, height, groups, width, 0, 0, lanes, height, width, (1, len(lanes), height, width)))

    def _ring(self, name: str, numbers: Sequence[int], words: int, fills: bool, packet: int | None = None) -> Chain:
        first, then = ("empty", "full") if fills else ("full", "empty")
        one = name.startswith("memory") and name.endswith("activations")  # one buffer for both slots
        places = [(name, slot * memory_shares(self.on).activations) if one else (f"{name}.{slot}", 0) for slot in (0, 1)]
        return tuple(Descriptor(number, *place, ((words, 1),), f"{name}.{first}", f"{name}.{then}", packet)
                     for place, number in zip(places, numbers, strict=False))  # fmt: skip

    def _activations(self) -> list[Task]:
        tasks, line, turns = [], self.columns * self.width * 2, self.steps // 2
        for column in range(self.columns):
            memory, name, words = self.on.memory(column), f"memory{column}.activations", self.object
            pattern = ((self.height * self.groups, line), (self.width * 2, 1))
            from_host = Descriptor(0, "x", column * self.width * 8, pattern, advance=(self.steps, self.height * self.groups * line))
            tasks += [
                Task(f"layer/x{column}", Channel(self.on.shim(column), "out", 0), (from_host,), self.steps),
                Task(f"layer/x in {column}", Channel(memory, "in", 0), self._ring(name, (0, 1), words, True), turns),
                Task(f"layer/x out {column}", Channel(memory, "out", 0), self._ring(name, (2, 3), words, False, TO_ALL), turns),
            ]
            for row in range(self.rows):
                ring = self._ring(f"core{column}.{row}.activations", (0, 1), self.object, True)
                tasks.append(Task(f"layer/core x {column}.{row}", Channel(self.on.core(row, column), "in", 0), ring, turns))
        return tasks

    def _packets(self, sizes: Sequence[int]) -> list[Task]:
        tasks, numbered = [], self.rows > self.columns
        for column in range(self.columns):
            memory, name = self.on.memory(column), f"memory{column}.weights"
            for turn, row in enumerate(range(column, self.rows, self.columns)):
                words = sizes[row] // 4
                from_host = (Descriptor(1 + turn, f"packet{row}", 0, ((words, 1),)),)
                slot, packet = slice(turn % 2, turn % 2 + 1), row if numbered else None
                fill = self._ring(name, (24 + 2 * turn, 25 + 2 * turn), words, True)[slot]
                drain = self._ring(name, (38 + 2 * turn, 39 + 2 * turn), words, False, packet)[slot]
                tasks += [
                    Task(f"layer/packet{row}", Channel(self.on.shim(column), "out", 1), from_host),
                    Task(f"layer/packet in {row}", Channel(memory, "in", 1), fill),
                    Task(f"layer/packet out {row}", Channel(memory, "out", 1), drain),
                ]
        for column in range(self.columns):
            for row in range(self.rows):
                ring = self._ring(f"core{column}.{row}.weights", (2, 3), sizes[row] // 4, True)[:1]
                tasks.append(Task(f"layer/core packet {column}.{row}", Channel(self.on.core(row, column), "in", 1), ring))
        return tasks

    def _results(self) -> list[Task]:
        tasks, turns = [], self.steps // 2
        for column in range(self.columns):
            for sender in dict.fromkeys(map(self.on.sender, range(self.rows))):
                rows = [row for row in range(self.rows) if self.on.sender(row) == sender]
                memory, number = self.on.result_memory(sender, column), self.on.results_input(sender)
                into = [self._ring(f"memory{column}.results{row}", self._numbers(number, row), self.object, True) for row in rows]
                away = [self._ring(f"core{column}.{row}.results", (4 + 2 * (row % 2), 5 + 2 * (row % 2)), self.object, False)
                        for row in rows]  # fmt: skip
                core = self.on.core(sender, column)
                tasks += [Task(f"layer/core y {column}.{sender}", Channel(core, "out", 0), _turns(away), turns),
                          Task(f"layer/y in {column}.{sender}", Channel(memory, "in", number), _turns(into), turns)]  # fmt: skip
            for number in range(self.on.memories):
                tasks += self._out(column, number)
        return tasks

    @staticmethod
    def _numbers(channel: int, row: int) -> tuple[int, int]:
        first = (24 if channel % 2 else 0) + 4 + 2 * (row % 4)
        return first, first + 1

    def _out(self, column: int, number: int) -> list[Task]:
        """Results of the rows of one memory tile, row after row for each step."""
        rows, memory = range(4 * number, min(self.rows, 4 * number + 4)), self.on.memory(column, number)
        turn = [self._ring(f"memory{column}.results{row}", (14, 15), self.object, False) for row in rows]
        slots = [turn[at][slot] for slot in (0, 1) for at in range(len(rows))]
        chain = tuple(Descriptor(14 + at, one.buffer, 0, one.dimensions, one.acquire, one.release) for at, one in enumerate(slots))
        line, groups = self.columns * self.width * 2, self.rows * self.groups
        pattern = ((self.height, groups * line), (self.groups, line), (self.width * 2, 1))
        to_host = tuple(Descriptor(8 + 4 * number + at, "y", 4 * (row * self.groups * line + column * self.width * 2), pattern,
                                   advance=(self.steps, self.height * groups * line)) for at, row in enumerate(rows))  # fmt: skip
        name = f"layer/y{column}" + (f".{number}" if number else "")
        return [Task(f"{name} out", Channel(memory, "out", results_output(number)), chain, self.steps // 2),
                Task(name, Channel(Tile(self.on.shims[column], 0), "in", number), to_host, self.steps)]  # fmt: skip
