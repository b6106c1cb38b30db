"""A network as one object file with a C interface: for machines other than this one, and for programs without Python.

All that ``program.py`` makes in memory is data of the object: tables and weights in a section of their own, the slots and the
list of calls as words that the linker fills with addresses, arena and scratch as memory that begins as zeros, and one pool. So the
object needs nothing but the C library's ``IMPORTS``. It holds one network with one arena: calls of it must not overlap.

LLVM would take weights as text, at three letters a byte: it gets a section of zeros of their size, and the bytes are put in
their place in the finished file.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from string import Template

import numpy as np

from zellige.cpu import toolchain
from zellige.cpu.batch import plan_batch
from zellige.cpu.calls import External, Place, Plan, Scratch, Slot
from zellige.cpu.isa import Isa
from zellige.cpu.kernels.kernel import emit_module
from zellige.cpu.launch import CALL_WORDS, HEADER_WORDS
from zellige.cpu.lower.lowering import Options
from zellige.cpu.memory import plan_memory
from zellige.cpu.program import SLACK, Tables, needed_barriers, shares
from zellige.cpu.runtime import LINE, POOL, POOL_BYTES, runtime_ir
from zellige.errors import CompileError
from zellige.graph.ir import Graph

SECTION = ".zellige.tables"

DATA = Template("""
@zellige.tables = internal constant [$tables_bytes x i8] zeroinitializer, section "$section", align 4096
@zellige.arena = internal global [$arena_bytes x i8] zeroinitializer, align 4096
@zellige.scratch = internal global [$scratch_bytes x i8] zeroinitializer, align 4096
@zellige.pool = internal global <{ [$threads_place x i8], i32, [$pool_rest x i8] }>
  <{ [$threads_place x i8] zeroinitializer, i32 $threads, [$pool_rest x i8] zeroinitializer }>, align $line
@zellige.slots = internal global [$slot_count x ptr] [$slots], align 64
@zellige.boundaries = internal constant [$boundary_count x i64] [$boundaries], align 64
@zellige.program = internal constant [$word_count x ptr] [$words], align 64

define void @${name}_run($parameters) nounwind {
$bindings
  call void @zellige_launch(ptr @zellige.pool, ptr @zellige.program)
  ret void
}

define void @${name}_work(i64 %thread) nounwind {
  call void @zellige_worker(ptr @zellige.pool, i64 %thread)
  ret void
}

define void @${name}_stop() nounwind {
  call void @zellige_stop(ptr @zellige.pool)
  ret void
}
""")

HEADER = Template("""\
/* $name: a neural network, compiled by Zellige for $isa, $triple. Needs: $needs.
   Arrays are float32, row-major and contiguous. The network has $memory bytes of memory of its own, and $constants of constants.
   Calls of ${name}_run must not overlap.

$shapes */
#ifndef ${guard}_H
#define ${guard}_H

#ifdef __cplusplus
extern "C" {
#endif

#define ${guard}_THREADS $threads

/* Run the network. With several threads it works together with all others, which must be in ${name}_work. */
void ${name}_run($arguments);

/* The life of thread 1 ... ${guard}_THREADS - 1: returns after ${name}_stop. */
void ${name}_work(long thread);

/* End the other threads' work, once and for all; does not wait for it. */
void ${name}_stop(void);

#ifdef __cplusplus
}
#endif
#endif
""")


@dataclass(frozen=True)
class ObjectCode:
    """An object file (ELF, relocatable, position independent) and the C header that declares its functions."""

    image: bytes
    header: str


def build_object(graph: Graph, isa: Isa, name: str, options: Options | None = None, threads: int = 1) -> ObjectCode:
    """Compile an optimised graph for any machine that has an instruction set, to be run by so many threads.

    ``name`` begins the names of its functions. Raises ``CompileError`` if it can't be a name in C, or an operator has no kernel.
    """
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        raise CompileError(f"{name!r} can't begin the name of a C function: use letters, digits and _, a letter first")
    if threads < 1:
        raise CompileError(f"expected at least one thread, got {threads}")
    plan = plan_batch(graph, isa, options)
    tables = Tables(plan)
    text = hidden(emit_module(plan.kernels, isa) + runtime_ir(isa)) + data_ir(graph, plan, tables, name, threads)
    constants = tables.memory.bytes[:tables.nbytes + SLACK]
    image = with_section(toolchain.compile_ir(text, isa, native=False), SECTION, constants)
    return ObjectCode(image, header(graph, plan, isa, name, threads, len(constants)))


def hidden(text: str) -> str:
    """The same functions, all of them private to the object: several networks can be linked into one program."""
    return text.replace("\ndefine void @", "\ndefine internal void @")


# The network's data as LLVM IR


def data_ir(graph: Graph, plan: Plan, tables: Tables, name: str, threads: int) -> str:
    """Memory, slots and calls as global variables, and the functions that others call."""
    arena = plan_memory(plan.calls, plan.buffers)

    def constant(slot: Slot) -> str:
        if isinstance(slot, Place):
            return address("arena", SLACK + 4 * (arena.offsets[slot.buffer] + slot.offset))
        if isinstance(slot, np.ndarray):
            return address("tables", slot.ctypes.data - tables.memory.address)
        if isinstance(slot, Scratch):
            return address("scratch", 0)
        return "ptr null" if isinstance(slot, External) else number(slot)

    boundaries = np.stack([shares(call.costs, threads) for call in plan.calls])
    barriers = needed_barriers(plan.calls, boundaries)
    steps = {External(kind, index): 4 * math.prod(shape) // plan.parts for kind, index, shape in ports(graph)}
    words = [number(plan.parts * len(plan.calls)), "ptr null"]
    slots: list[str] = []
    bindings: list[str] = []
    places: dict[int, int] = {}
    for part, (index, call) in product(range(plan.parts), enumerate(plan.calls)):
        fresh = part == 0 or call.meets_caller  # all others have the same slots in every part
        places[index] = len(slots) if fresh else places[index]
        words += [f"ptr @{call.kernel.symbol}", address("slots", 8 * places[index]),
                  address("boundaries", 8 * index * (threads + 1)), number(int(barriers[index]))]
        for slot_name in call.kernel.SLOTS if fresh else ():
            slot = call.slots.get(slot_name, 0)
            if isinstance(slot, External):
                bindings += binding(slot, part * steps[slot], len(slots))
            slots.append(constant(slot))
    assert len(words) == HEADER_WORDS + CALL_WORDS * plan.parts * len(plan.calls)
    return DATA.substitute(
        name=name, section=SECTION, tables_bytes=tables.nbytes + SLACK, arena_bytes=4 * arena.elements + 2 * SLACK,
        scratch_bytes=scratch_bytes(plan) * threads + SLACK, threads=threads, threads_place=POOL["threads"],
        pool_rest=POOL_BYTES - POOL["threads"] - 4, line=LINE, slots=", ".join(slots), slot_count=len(slots),
        boundaries=", ".join(f"i64 {end}" for end in boundaries.flat), boundary_count=boundaries.size,
        words=", ".join(words), word_count=len(words), bindings="\n".join(bindings),
        parameters=", ".join(f"ptr %{kind}{index}" for kind, index, _ in ports(graph)))


def binding(slot: External, offset: int, number: int) -> list[str]:
    """Instructions that put the address of an argument, so many bytes in, into a slot."""
    return [f"  %at{number} = getelementptr i8, ptr %{slot.kind}{slot.index}, i64 {offset}",
            f"  store ptr %at{number}, {address('slots', 8 * number)}, align 8"]


def address(variable: str, offset: int) -> str:
    return f"ptr getelementptr (i8, ptr @zellige.{variable}, i64 {offset})"


def number(value: int) -> str:
    """A word that is no address."""
    return f"ptr inttoptr (i64 {value} to ptr)"


def scratch_bytes(plan: Plan) -> int:
    """Scratch memory of one thread."""
    slots = [slot for call in plan.calls for slot in call.slots.values()]
    return 4 * max((slot.elements for slot in slots if isinstance(slot, Scratch)), default=0)


def ports(graph: Graph) -> Iterable[tuple[str, int, tuple[int, ...]]]:
    """The arguments of the network as a C function: inputs, then outputs, with their shapes."""
    yield from (("input", index, kind.shape) for index, kind in enumerate(graph.inputs.values()))
    yield from (("output", index, graph.type_of(name).shape) for index, name in enumerate(graph.outputs))


def header(graph: Graph, plan: Plan, isa: Isa, name: str, threads: int, constants: int) -> str:
    """The C declarations of the functions."""
    memory = 4 * plan_memory(plan.calls, plan.buffers).elements + scratch_bytes(plan) * threads + 3 * SLACK
    arguments = [f"{'const ' * (kind == 'input')}float *{kind}{index}" for kind, index, _ in ports(graph)]
    shapes = [f"   {kind}{index}: {' x '.join(map(str, shape)) or 'a single number'}" for kind, index, shape in ports(graph)]
    return HEADER.substitute(name=name, guard=name.upper(), isa=isa.name, triple=isa.triple, needs=", ".join(isa.needs),
                             threads=threads, memory=memory, constants=constants, arguments=", ".join(arguments),
                             shapes="\n".join(shapes))


# The object file


def with_section(image: bytes, name: str, content: np.ndarray) -> bytes:
    """An ELF file of 64 bits, little-endian, whose section of zeros has got a content of the same size."""
    headers, = struct.unpack_from("<Q", image, 0x28)
    size, count, names = struct.unpack_from("<HHH", image, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", image, headers + size * index) for index in range(count)]
    text = sections[names][4]
    for place, _, _, _, offset, length in sections:
        first = text + place
        if image[first:image.index(b"\0", first)].decode() == name:
            assert length == content.nbytes and not any(image[offset:offset + min(length, 64)])
            return b"".join((image[:offset], content.tobytes(), image[offset + length:]))
    raise CompileError(f"the object file that LLVM made has no section {name}")
