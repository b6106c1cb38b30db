"""What a core does, as MLIR: loops around locks and the call of the kernel; and read back from it.

A core's rings have two slots. Which one is next is a truth value for each ring, carried through the loops; every release of a
slot flips it. How often a loop runs is loaded from the packet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import NoReturn

from zellige.aie2.emit.operation import Attribute, Block, Integer, Operation, Symbol, region
from zellige.aie2.packet import WORDS
from zellige.aie2.program import Acquire, Core, Instruction, Release, Repeat, Ring, Step, Tile
from zellige.errors import CompileError

KERNEL = "step"
"""The function of ``kernels/step.cc``."""

OBJECT = "step.o"
"""What a core is linked with."""

RINGS = ("weights", "activations", "results")
COUNTED = ("steps", "results")
"""Fields of a packet that say how often something is done."""

ACQUIRE, RELEASE = Integer(2), Integer(1)
"""AcquireGreaterEqual and Release, by their numbers in MLIR-AIE."""

FOREVER = 2**32 - 1

Value = tuple[str, str]
State = tuple[Value, ...]
"""Which slot of each of ``RINGS`` is next."""

Refuse = Callable[[Operation, str], NoReturn]
"""Raises the error that something else was expected than an operation."""


def memref(size: int) -> str:
    """The type of a buffer of so many bytes: in words.

    >>> memref(64)
    'memref<16xi32>'
    """
    return f"memref<{size // 4}xi32>"


def use_lock(lock: str, action: Integer) -> Operation:
    return Operation("aie.use_lock", ((lock, "index"),), (), {"action": action, "value": Integer(1)})


def end() -> Operation:
    return Operation("aie.end")


def kernel_operands(core: Core, types: dict[str, str]) -> tuple[str, ...]:
    """The types of what the kernel is called with: packet, activations, result, accumulators."""
    return (*(types[ring.slots[0]] for ring in (core.weights, core.activations, core.results)), types[core.accumulators])


def core_operation(core: Core, tile: Value, types: dict[str, str]) -> Operation:
    """A core on its tile. ``types`` are those of buffers, by name. Raises ``CompileError`` for rings of other depths than two."""
    for name in RINGS:
        ring: Ring = getattr(core, name)
        if len(ring.slots) != 2 or len({types[slot] for slot in ring.slots}) != 1:
            raise CompileError(f"core {core.tile}: expected two slots of one size as ring of {name}, got {', '.join(ring.slots)}")
    body = _Body(core, types, count(), [])
    indices = {value: body.add("arith.constant", (), "index", value=Integer(value, "index"))
               for value in sorted({0, 1, FOREVER, *map(WORDS.index, COUNTED)})}
    flip, first = (body.add("arith.constant", (), "i1", value=value) for value in (True, False))
    _write(body, core.program, (first,) * len(RINGS), indices, flip)
    rings = {name: _ring_names(getattr(core, name)) for name in RINGS}
    return Operation("aie.core", (tile,), ((f"core_{core.tile.column}_{core.tile.row}", "index"),),
                     {**rings, "accumulators": core.accumulators, "link_with": OBJECT}, (), region([*body.operations, end()]))


def _ring_names(ring: Ring) -> tuple[str, ...]:
    return (*ring.slots, ring.full, ring.empty)


@dataclass
class _Body:
    """Operations as they are written one behind another; ``numbers`` name their results."""

    core: Core
    types: dict[str, str]
    numbers: Iterator[int]
    operations: list[Operation]

    def value(self, type: str) -> Value:
        return str(next(self.numbers)), type

    def add(self, name: str, operands: tuple[Value, ...], type: str, **attributes: Attribute) -> Value:
        result = self.value(type)
        self.operations.append(Operation(name, operands, (result,), attributes))
        return result

    def slot(self, name: str, state: State) -> Value:
        """The buffer of a ring that is next."""
        first, second = ((slot, self.types[slot]) for slot in getattr(self.core, name).slots)
        return self.add("arith.select", (state[RINGS.index(name)], second, first), first[1])

    def lock(self, name: str) -> str:
        ring, _, which = name.partition(".")
        return str(getattr(getattr(self.core, ring), which))


def _write(body: _Body, program: tuple[Instruction, ...], state: State, indices: dict[int, Value], flip: Value) -> State:
    for one in program:
        if isinstance(one, Acquire):
            body.operations.append(use_lock(body.lock(one.lock), ACQUIRE))
        elif isinstance(one, Release):
            body.operations.append(use_lock(body.lock(one.lock), RELEASE))
            at = RINGS.index(one.lock.partition(".")[0])
            state = (*state[:at], body.add("arith.xori", (state[at], flip), "i1"), *state[at + 1 :])
        elif isinstance(one, Step):
            body.operations.append(_call(body, state))
        else:
            state = _loop(body, one, state, indices, flip)
    return state


def _call(body: _Body, state: State) -> Operation:
    accumulators = body.core.accumulators
    operands = (*(body.slot(name, state) for name in RINGS), (accumulators, body.types[accumulators]))
    return Operation("func.call", operands, (), {"callee": Symbol(KERNEL)})


def _loop(body: _Body, repeat: Repeat, state: State, indices: dict[int, Value], flip: Value) -> State:
    times = indices[FOREVER]
    if repeat.times is not None:
        word = body.add("memref.load", (body.slot("weights", state), indices[WORDS.index(repeat.times)]), "i32")
        times = body.add("arith.index_cast", (word,), "index")
    results = tuple(body.value("i1") for _ in RINGS)
    counter, carried = body.value("index"), tuple(body.value("i1") for _ in RINGS)
    inner = _Body(body.core, body.types, body.numbers, [])
    left = _write(inner, repeat.body, carried, indices, flip)
    block = region([*inner.operations, Operation("scf.yield", left)], (counter, *carried))
    body.operations.append(Operation("scf.for", (indices[0], times, indices[1], *state), results, {}, (), block))
    return results


def read_core(operation: Operation, tile: Tile, refuse: Refuse) -> Core:
    """The core that an operation stands for."""
    rings = {}
    for name in RINGS:
        names = operation.attributes.get(name)
        if not isinstance(names, tuple) or len(names) != 4:
            refuse(operation, f"two slots and two locks as its {name}")
        rings[name] = Ring((str(names[0]), str(names[1])), str(names[2]), str(names[3]))
    locks = {getattr(ring, which): f"{name}.{which}" for name, ring in rings.items() for which in ("full", "empty")}
    if not operation.region or not isinstance(accumulators := operation.attributes.get("accumulators"), str):
        refuse(operation, "a core with a body and accumulators")
    program = _instructions(operation.region[0], locks, {}, refuse)
    return Core(tile, rings["activations"], rings["weights"], rings["results"], accumulators, program)


def _instructions(block: Block, locks: dict[str, str], made: dict[str, Operation], refuse: Refuse) -> tuple[Instruction, ...]:
    """What a block does; ``made``: the operations that values come from."""
    found: list[Instruction] = []
    for one in block.operations:
        made.update({name: one for name, _ in one.results})
        if one.name == "aie.use_lock":
            lock, action = locks.get(one.operands[0][0]), _integer(one, "action")
            if lock is None or action not in (ACQUIRE, RELEASE):
                refuse(one, "a lock of the core's rings that is acquired or released")
            found.append(Acquire(lock) if action == ACQUIRE else Release(lock))
        elif one.name == "func.call":
            found.append(Step())
        elif one.name == "scf.for" and one.region:
            times = _times(made.get(one.operands[1][0]), made)
            if times is False:
                refuse(one, "a loop that runs for ever or as often as its packet says")
            found.append(Repeat(times, _instructions(one.region[0], locks, made, refuse)))  # type: ignore[arg-type]
    return tuple(found)


def _integer(operation: Operation, name: str) -> Integer:
    value = operation.attributes.get(name)
    return value if isinstance(value, Integer) else Integer(-1)


def _times(bound: Operation | None, made: dict[str, Operation]) -> str | bool | None:
    """The field of a packet that a loop's bound is loaded from, ``None`` if it is for ever, ``False`` if it is neither."""
    if bound is None:
        return False
    if bound.name == "arith.constant":
        return None if _integer(bound, "value").value == FOREVER else False
    word = made.get(bound.operands[0][0]) if bound.operands else None
    place = made.get(word.operands[1][0]) if word is not None and len(word.operands) == 2 else None
    name = WORDS[at] if place is not None and 0 <= (at := _integer(place, "value").value) < len(WORDS) else ""
    return name if name in COUNTED else False
