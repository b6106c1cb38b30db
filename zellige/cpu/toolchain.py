"""LLVM, seen from the compiler: IR text in, object code or assembly out, object code loaded.

Kernels come hand-scheduled, so LLVM's own vectorisers and unrollers stay off. Code is position independent, in the small
code model: pointers to data come in as arguments, never as addresses in the code, and an object is loaded in one piece.

One lock covers all of LLVM. It is held across ``fork``, so that a child never inherits LLVM in the middle of something.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import llvmlite.binding as llvm

from zellige.cpu import host
from zellige.cpu.isa import ISAS, Isa
from zellige.errors import CompileError

T = TypeVar("T")

PIPELINE = "speed level 3, no vectorisers, no unrolling, position independent, small code model"
IMPORTS = ("memcpy", "memmove", "memset", "syscall", "sched_yield", "sched_getcpu", "clock_gettime")
"""What generated code may call: what LLVM makes of plain copies, and what the launch code needs of the C library."""

_llvm = threading.RLock()
_numbers = itertools.count()
os.register_at_fork(before=_llvm.acquire, after_in_parent=_llvm.release, after_in_child=_llvm.release)


@dataclass(frozen=True)
class Target:
    """What LLVM is told of the machine that code is made for."""

    triple: str
    cpu: str
    features: str


def target(isa: Isa, native: bool = True) -> Target:
    """The target of an instruction set: tuned for this very CPU, or for any that has it.

    Native code uses whatever this CPU has, but of no wider instruction set than the one asked for.
    """
    if not native:
        return Target(isa.triple, isa.cpu, isa.features)
    host.require(isa)
    wider = [other for other in ISAS.values() if other.triple == isa.triple and other.lanes > isa.lanes]
    refused = dict.fromkeys(feature for other in wider for feature in other.needs if feature not in isa.needs)
    present = [f"{'+' if present else '-'}{feature}" for feature, present in host.cpu_features().items()]
    features = present + [f"-{feature}" for feature in refused] + [isa.features]
    return Target(isa.triple, host.cpu_name(), ",".join(filter(None, features)))


def compile_ir(text: str, isa: Isa, native: bool = True) -> bytes:
    """LLVM IR → an object file (ELF). ``CompileError`` if LLVM does not accept the IR."""
    return _translate(text, target(isa, native), lambda machine, module: machine.emit_object(module))


def assembly(text: str, isa: Isa, native: bool = True) -> str:
    """LLVM IR → the assembly of what ``compile_ir`` makes of it."""
    return _translate(text, target(isa, native), lambda machine, module: machine.emit_assembly(module))


def _translate(text: str, goal: Target, emit: Callable[[llvm.TargetMachine, llvm.ModuleRef], T]) -> T:
    with _llvm:
        try:
            return _translate_alone(text, goal, emit)
        except RuntimeError as error:
            raise CompileError(f"LLVM refuses the code made for {goal.triple} ({goal.cpu}): {error}") from error


def _translate_alone(text: str, goal: Target, emit: Callable[[llvm.TargetMachine, llvm.ModuleRef], T]) -> T:
    """A function of its own, so that LLVM's objects go while the lock is still held."""
    _initialise()
    machine = llvm.Target.from_triple(goal.triple).create_target_machine(
        cpu=goal.cpu, features=goal.features, opt=3, reloc="pic", codemodel="small")
    module = llvm.parse_assembly(text, llvm.create_context())
    module.triple, module.data_layout = goal.triple, str(machine.target_data)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = False
    options.loop_unrolling = options.loop_interleaving = False
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    foreign = [function.name for function in module.functions
               if function.is_declaration and not function.name.startswith("llvm.") and function.name not in IMPORTS]
    if foreign:
        raise CompileError(f"generated code may call only {', '.join(IMPORTS)}, but calls {', '.join(foreign)}")
    return emit(machine, module)


class Library:
    """Loaded object code. Its addresses are good for as long as the library is referenced."""

    def __init__(self, image: bytes, name: str):
        unique = f"{name}#{next(_numbers)}"  # the linker takes no name twice, even of a library that is gone
        with _llvm:
            builder = llvm.JITLibraryBuilder().add_object_img(image)
            for symbol, address in _imports().items():
                builder.import_symbol(symbol, address)
            try:
                tracker = builder.link(_linker(), unique)
            except RuntimeError as error:
                raise CompileError(f"the object code of {name} can't be loaded: {error}") from error
        self.name = name
        self._unique = unique
        self._trackers = {"": tracker}
        weakref.finalize(self, _unload, self._trackers).atexit = False  # code may still run while the interpreter ends

    def address(self, symbol: str) -> int:
        """The address of a function or variable. ``CompileError`` if there is none."""
        with _llvm:
            if symbol not in self._trackers:
                try:
                    self._trackers[symbol] = _linker().lookup(self._unique, symbol)
                except RuntimeError as error:
                    raise CompileError(f"no usable symbol {symbol} in {self.name}: {error}") from error
            return self._trackers[symbol][symbol]


def load_object(image: bytes, name: str) -> Library:
    """Make object code for this machine executable; ``name`` is for messages."""
    return Library(image, name)


def _unload(trackers: dict[str, llvm.ResourceTracker]) -> None:
    with _llvm:
        for tracker in trackers.values():  # any one of them takes the code away
            tracker.close()


@cache
def _initialise() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


@cache
def _linker() -> llvm.LLJIT:
    _initialise()
    return llvm.create_lljit_compiler(use_jit_link=True, suppress_errors=True)


@cache
def _imports() -> dict[str, int]:
    process = ctypes.CDLL(None)
    return {symbol: ctypes.cast(getattr(process, symbol), ctypes.c_void_p).value or 0 for symbol in IMPORTS}
