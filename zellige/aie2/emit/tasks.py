"""The host's sequence as MLIR, and read back: tasks are configured when they are first started, then started and awaited."""

from __future__ import annotations

from collections.abc import Mapping

from zellige.aie2.device import WORD
from zellige.aie2.emit.core import ACQUIRE, RELEASE, Refuse, Value, end, memref, use_lock
from zellige.aie2.emit.operation import Attribute, Block, Integer, Operation, region
from zellige.aie2.program import Await, Channel, Descriptor, HostBuffer, Program, Start, Task, Tile
from zellige.errors import CompileError

DIRECTIONS = ("in", "out")
"""S2MM and MM2S, by their numbers in MLIR-AIE."""


def sequence_operation(program: Program, buffers: Mapping[str, Value], tiles: Mapping[Tile, Value]) -> Operation:
    """All that the host does. ``buffers`` are those of tiles, by name.

    Raises ``CompileError`` for tasks that are never started, and for such as are started once more when another task has taken
    their descriptors.
    """
    host = {one.name: (f"host{at}", memref(one.size)) for at, one in enumerate(program.host)}
    awaited = {step.task for step in program.sequence if isinstance(step, Await)}
    owners: dict[tuple[Tile, int], str] = {}
    configured: dict[str, Value] = {}
    operations = []
    for step in program.sequence:
        task = program.tasks[step.task]
        if isinstance(step, Start):
            places = [(task.channel.tile, one.number) for one in task.descriptors]
            if task.name not in configured:
                configured[task.name] = value = (f"task{len(configured)}", "index")
                operations.append(_configure(task, value, {**buffers, **host}, tiles[task.channel.tile], task.name in awaited))
                owners.update(dict.fromkeys(places, task.name))
            elif taken := [place for place in places if owners[place] != task.name]:
                raise CompileError(f"the task {task.name} is started once more, but descriptor {taken[0][1]} of {taken[0][0]} is "
                                   f"by then that of the task {owners[taken[0]]}")
        elif task.name not in configured:
            raise CompileError(f"the task {task.name} is awaited before it is started")
        operations.append(Operation(_word(step), (configured[task.name],)))
    if left := [name for name in program.tasks if name not in configured]:
        raise CompileError(f"the task {left[0]} is never started")
    return Operation("aie.runtime_sequence", (), (), {"sym_name": "sequence", "buffers": tuple(host)}, (),
                     region([*operations, end()], host.values()))


def _word(step: Start | Await) -> str:
    return "aiex.dma_start_task" if isinstance(step, Start) else "aiex.dma_await_task"


def _configure(task: Task, value: Value, buffers: Mapping[str, Value], tile: Value, awaited: bool) -> Operation:
    blocks = []
    for at, one in enumerate(task.descriptors):
        last = at == len(task.descriptors) - 1
        operations = [use_lock(one.acquire, ACQUIRE)] if one.acquire else []
        operations.append(Operation("aie.dma_bd", (buffers[one.buffer],), (), _descriptor(one)))
        operations += [use_lock(one.release, RELEASE)] if one.release else []
        operations.append(end() if last else Operation("aie.next_bd", successors=(f"bb{at + 1}",)))
        blocks.append(Block(tuple(operations), f"bb{at}" if at else None))
    channel = task.channel
    attributes: dict[str, Attribute] = {
        "task": task.name, "direction": Integer(DIRECTIONS.index(channel.direction)), "channel": Integer(channel.number),
        "repeat_count": Integer(task.repeat - 1), "issue_token": awaited}
    return Operation("aiex.dma_configure_task", (tile,), (value,), attributes, (), tuple(blocks))


def _descriptor(one: Descriptor) -> dict[str, Attribute]:
    """Offsets, lengths and strides are in words, the elements of all buffers."""
    if one.offset % WORD:
        raise CompileError(f"a descriptor begins at byte {one.offset} of {one.buffer}: expected a multiple of {WORD}")
    if not one.dimensions:
        raise CompileError(f"descriptor {one.number} of {one.buffer}: expected a dimension at least, got none")
    sizes, strides = zip(*one.dimensions, strict=True)
    times, advance = one.advance
    found: dict[str, Attribute] = {
        "bd_id": Integer(one.number), "offset": Integer(one.offset // WORD), "len": Integer(one.words), "sizes": sizes,
        "strides": strides, "iteration_size": Integer(times), "iteration_stride": Integer(advance)}
    if one.packet is not None:
        found |= {"packet_type": Integer(0), "packet_id": Integer(one.packet)}
    return found


Sequence = tuple[dict[str, Task], tuple[Start | Await, ...], tuple[HostBuffer, ...]]


def read_sequence(operation: Operation, tiles: Mapping[str, Tile], refuse: Refuse) -> Sequence:
    """Tasks, sequence and host buffers (without data) of a sequence."""
    if not operation.region:
        refuse(operation, "a sequence with operations")
    block, names = operation.region[0], operation.attributes.get("buffers", ())
    if not isinstance(names, tuple) or len(names) != len(block.arguments):
        refuse(operation, f"{len(block.arguments)} names of buffers")
    host = {value: HostBuffer(str(name), _bytes(type, operation, refuse))
            for name, (value, type) in zip(names, block.arguments, strict=True)}
    held = {value: buffer.name for value, buffer in host.items()}
    tasks: dict[str, Task] = {}
    sequence: list[Start | Await] = []
    for one in block.operations:
        if one.name == "aiex.dma_configure_task" and len(one.results) == 1:
            tasks[one.results[0][0]] = _task(one, tiles, held, refuse)
        elif one.name in ("aiex.dma_start_task", "aiex.dma_await_task"):
            if not one.operands or one.operands[0][0] not in tasks:
                refuse(one, "a task that has been configured")
            sequence.append((Start if one.name == "aiex.dma_start_task" else Await)(tasks[one.operands[0][0]].name))
        elif one.name != "aie.end":
            refuse(one, "a task that is configured, started or awaited")
    return {task.name: task for task in tasks.values()}, tuple(sequence), tuple(host.values())


def _bytes(type: str, operation: Operation, refuse: Refuse) -> int:
    words = type.removeprefix("memref<").removesuffix("xi32>")
    if not words.isdecimal():
        refuse(operation, f"a buffer of words, not {type}")
    return WORD * int(words)


def _task(operation: Operation, tiles: Mapping[str, Tile], host: Mapping[str, str], refuse: Refuse) -> Task:
    if len(operation.operands) != 1 or operation.operands[0][0] not in tiles or not operation.region:
        refuse(operation, "a task on a tile, with descriptors")
    if not isinstance(name := operation.attributes.get("task"), str):
        refuse(operation, "the name of a task")
    direction, number = (read_integer(operation, name, refuse) for name in ("direction", "channel"))
    if direction not in range(len(DIRECTIONS)):
        refuse(operation, "direction 0 or 1")
    channel = Channel(tiles[operation.operands[0][0]], DIRECTIONS[direction], number)  # type: ignore[arg-type]
    descriptors = tuple(_read_descriptor(block, operation, host, refuse) for block in operation.region)
    return Task(name, channel, descriptors, read_integer(operation, "repeat_count", refuse) + 1)


def _read_descriptor(block: Block, task: Operation, host: Mapping[str, str], refuse: Refuse) -> Descriptor:
    locks: dict[int, str] = {}
    moved: Operation | None = None
    for one in block.operations:
        if one.name == "aie.use_lock" and one.operands:
            locks[read_integer(one, "action", refuse)] = one.operands[0][0]
        elif one.name == "aie.dma_bd" and one.operands:
            moved = one
        elif one.name not in ("aie.end", "aie.next_bd"):
            refuse(one, "a part of a descriptor")
    if moved is None:
        refuse(task, "a transfer in every descriptor")
    sizes, strides = (moved.attributes.get(name, ()) for name in ("sizes", "strides"))
    if not isinstance(sizes, tuple) or not isinstance(strides, tuple) or len(sizes) != len(strides):
        refuse(moved, "as many strides as sizes")
    number, offset, times, advance = (read_integer(moved, name, refuse)
                                      for name in ("bd_id", "offset", "iteration_size", "iteration_stride"))
    packet = read_integer(moved, "packet_id", refuse) if "packet_id" in moved.attributes else None
    dimensions: tuple[tuple[int, int], ...] = tuple(zip(sizes, strides, strict=True))  # type: ignore[arg-type]
    value = moved.operands[0][0]
    return Descriptor(number, host.get(value, value), offset * WORD, dimensions, locks.get(ACQUIRE.value), locks.get(RELEASE.value),
                      packet, (times, advance))


def read_integer(operation: Operation, name: str, refuse: Refuse) -> int:
    """A number among the attributes of an operation."""
    value = operation.attributes.get(name)
    if not isinstance(value, Integer):
        refuse(operation, f"a number {name!r}")
    return value.value
