"""IR in, code out: for this machine it runs, for others it is what their processors understand."""

import ctypes
import gc
import os
import re
import signal
import struct
import threading

import numpy as np
import pytest

from zellige.cpu import toolchain
from zellige.cpu.host import host_isa, runs_here
from zellige.cpu.isa import AVX2, AVX512, ISAS, NEON, Isa
from zellige.cpu.runtime import runtime_ir
from zellige.cpu.toolchain import assembly, compile_ir, load_object
from zellige.errors import CompileError

ADD_ONE = "define i64 @add_one(i64 %x) { %y = add i64 %x, 1 ret i64 %y }"
ELF_MACHINES = {"x86_64": 62, "aarch64": 183}


def scale_ir(isa: Isa) -> str:
    """Vectors times constants of their own, in a loop over pointers: constants, memory and control."""
    vector = f"<{isa.lanes} x float>"
    numbers = ", ".join(f"float {lane + 1}.0" for lane in range(isa.lanes))
    return f"""
define void @scale(ptr %data, i64 %count) {{
enter:
  br label %loop
loop:
  %i = phi i64 [ 0, %enter ], [ %next, %loop ]
  %place = getelementptr {vector}, ptr %data, i64 %i
  %value = load {vector}, ptr %place, align 4
  %scaled = fmul {vector} %value, <{numbers}>
  store {vector} %scaled, ptr %place, align 4
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %count
  br i1 %more, label %loop, label %end
end:
  ret void
}}"""


def call(library: toolchain.Library, symbol: str, result: object, *arguments: object) -> object:
    kinds = [ctypes.c_void_p if isinstance(argument, np.ndarray) else ctypes.c_int64 for argument in arguments]
    values = [argument.ctypes.data if isinstance(argument, np.ndarray) else argument for argument in arguments]
    return ctypes.CFUNCTYPE(result, *kinds)(library.address(symbol))(*values)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("isa", [isa for isa in ISAS.values() if runs_here(isa)], ids=lambda isa: isa.name)
def test_code_runs_here(isa, native):
    library = load_object(compile_ir(scale_ir(isa), isa, native), "scale")
    data = np.ones((5, isa.lanes), np.float32)
    call(library, "scale", None, data, 4)
    expected = np.vstack([np.tile(np.arange(1, isa.lanes + 1), (4, 1)), np.ones((1, isa.lanes))])
    np.testing.assert_array_equal(data, expected)


@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS)
@pytest.mark.parametrize("emit", [scale_ir, runtime_ir])
def test_code_for_every_isa(isa, emit):
    image = compile_ir(emit(isa), isa, native=False)
    assert image[:4] == b"\x7fELF"
    assert struct.unpack_from("<H", image, 18)[0] == ELF_MACHINES[isa.triple.split("-")[0]]
    assert assembly(emit(isa), isa, native=False)


@pytest.mark.parametrize("isa, register", [(AVX512, r"\bzmm"), (AVX2, r"\bymm"), (NEON, r"\bv\d+\.4s")])
def test_vectors_fill_registers(isa, register):
    text = assembly(scale_ir(isa), isa, native=False).replace("%", "")
    assert len(re.findall(register, text)) >= 3


@pytest.mark.skipif(not runs_here(AVX2), reason="needs an x86-64-v3 processor")
def test_native_code_stays_within_its_isa():
    wide = scale_ir(AVX512)  # vectors of 16, for an instruction set that has 8
    assert "zmm" not in assembly(wide, AVX2, native=True)
    features = toolchain.target(AVX2).features.split(",")
    assert features.index("-avx512f") > max(i for i, feature in enumerate(features) if feature.startswith("+"))


def test_loops_stay_as_they_are_written():
    text = """
define void @square(ptr %data, i64 %count) {
enter:
  br label %loop
loop:
  %i = phi i64 [ 0, %enter ], [ %next, %loop ]
  %place = getelementptr float, ptr %data, i64 %i
  %value = load float, ptr %place, align 4
  %scaled = fmul fast float %value, %value
  store float %scaled, ptr %place, align 4
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %count
  br i1 %more, label %loop, label %end
end:
  ret void
}"""
    for isa in ISAS.values():
        made = assembly(text, isa, native=False)
        assert len(re.findall(r"\b(?:v?mul[sp]s|fmul)\b", made)) == 1
        assert not re.search(r"\b[xyz]mm\d+.*mulps|fmul\tv", made)


def test_copies_that_llvm_makes_calls_of():
    text = """
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)
define void @work(ptr %data, i64 %n) {
  %second = getelementptr i8, ptr %data, i64 %n
  %third = getelementptr i8, ptr %second, i64 %n
  call void @llvm.memset.p0.i64(ptr %data, i8 7, i64 %n, i1 false)
  call void @llvm.memcpy.p0.p0.i64(ptr %second, ptr %data, i64 %n, i1 false)
  call void @llvm.memmove.p0.p0.i64(ptr %third, ptr %second, i64 %n, i1 false)
  ret void
}"""
    library = load_object(compile_ir(text, host_isa()), "copies")
    data = np.zeros(3000, np.uint8)
    call(library, "work", None, data, 999)
    assert np.all(data[:2997] == 7) and not data[2997:].any()


@pytest.mark.parametrize("text", [
    "define void @f( {", "define i32 @f() { ret i64 0 }", "define void @f() { call void @g() ret void }", "not IR",
    "define void @f(i1 %c) { br i1 %c, label %a, label %b a: %x = add i32 1, 2 br label %b b: %y = add i32 %x, 1 ret void }"])
def test_bad_ir_is_a_compile_error(text):
    with pytest.raises(CompileError, match="LLVM refuses"):
        compile_ir(text, host_isa())
    with pytest.raises(CompileError, match="LLVM refuses"):
        assembly(text, host_isa())


def test_code_may_call_nothing_else():
    text = "declare float @expf(float)\ndefine float @f(float %x) { %y = call float @expf(float %x) ret float %y }"
    with pytest.raises(CompileError, match=r"calls expf$"):
        compile_ir(text, host_isa())


def test_an_isa_that_does_not_run_here_compiles_but_not_natively():
    isa = next(isa for isa in ISAS.values() if not runs_here(isa))
    assert compile_ir(ADD_ONE, isa, native=False)
    with pytest.raises(CompileError, match=f"{isa.name} can't run here"):
        compile_ir(ADD_ONE, isa, native=True)


def test_objects_that_can_not_be_loaded():
    image = compile_ir(ADD_ONE, host_isa())
    with pytest.raises(CompileError, match="no usable symbol add_two in adder"):
        load_object(image, "adder").address("add_two")
    with pytest.raises(CompileError):
        load_object(b"no object at all", "nonsense").address("add_one")


def test_one_object_loaded_twice_and_dropped_once():
    image = compile_ir(ADD_ONE, host_isa())
    first, second = load_object(image, "adder"), load_object(image, "adder")
    assert first.address("add_one") != second.address("add_one")
    assert call(first, "add_one", ctypes.c_int64, 4) == 5
    del first
    gc.collect()
    assert call(second, "add_one", ctypes.c_int64, 5) == 6
    assert second.address("add_one") == second.address("add_one")


def test_many_libraries_come_and_go():
    image = compile_ir(ADD_ONE, host_isa())
    mappings = []
    for _ in range(300):
        assert call(load_object(image, "adder"), "add_one", ctypes.c_int64, 1) == 2
        with open("/proc/self/maps") as file:
            mappings.append(len(file.readlines()))
    assert mappings[-1] <= mappings[20] + 20


def test_threads_compile_at_once():
    results = [0] * 4

    def work(number: int) -> None:
        for i in range(5):
            text = f"define i64 @f() {{ ret i64 {10 * number + i} }}"
            results[number] += call(load_object(compile_ir(text, host_isa()), "f"), "f", ctypes.c_int64)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [50 * number + 10 for number in range(4)]


def test_fork_while_another_thread_compiles():
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            compile_ir(scale_ir(host_isa()), host_isa())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                signal.alarm(20)  # a child that hangs is killed
                value = call(load_object(compile_ir(ADD_ONE, host_isa()), "adder"), "add_one", ctypes.c_int64, 41)
                os._exit(0 if value == 42 else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        ended.set()
        thread.join()
