"""The launch code: how a list of kernel calls runs on several threads. LLVM IR, the same for every architecture but for a pause.

Two structures in native memory:

*program*, 64-bit words: the number of calls; the address of a table of times or 0; then four words a call: function,
slots, boundaries, barrier. Thread t does items ``boundaries[t] … boundaries[t + 1] - 1`` of a call. The last call
has its barrier set.

*pool*, the words of ``POOL``: what the threads tell each other.

**Barriers.** A thread reads ``phase``, then counts itself in ``arrived``. Phase can't move before all have arrived, so what
was read is this barrier's. The last to arrive resets ``arrived`` and moves ``phase`` on (release); the others wait until it
moves (acquire). Every arrival is an acquire-release addition to one word: the last thread has seen what all
others wrote, and its release passes that on.

**Epochs.** A launch writes the program's address, then moves ``epoch`` on; a worker that sees an epoch other than its last
runs the program. A program ends with a barrier of all threads, so none can miss an epoch, and once a worker has left
that barrier it touches the program no more.

**Sleep.** A worker that has waited for a while counts itself in ``sleepers``, looks at ``epoch`` again, and sleeps in the
kernel (futex) for as long as epoch is what it was. A launch moves epoch first, then looks at sleepers. All four are
sequentially consistent, so at least one side sees the other: the launch finds a sleeper and wakes it, or the worker
finds the new epoch. Nothing falls in between either, since the kernel compares epoch under the lock that a waker takes.
So no wake-up is lost.

**Waiting** spins for some µs, then gives the CPU away at every turn, so that a crowded machine degrades gently. A thread
notes when it was long in coming back: it then spins less, and a worker sleeps at once after its work instead. That frees the
CPU for the others.

**Places.** Threads that hand work to each other every few µs look to the system's scheduler as if one CPU were enough: it may
leave a worker beside the launching thread for seconds, each waiting while the other runs, though another CPU is idle. So a
launch notes its CPU, and a worker that finds itself there excludes it from those it may run on, which moves it, and
allows it again at once.
"""

from __future__ import annotations

import ctypes
from dataclasses import asdict, dataclass
from functools import cache
from string import Template

from zellige.cpu import host
from zellige.cpu.cache import MachineCodeCache
from zellige.cpu.isa import Isa
from zellige.cpu.toolchain import Library
from zellige.errors import CompileError

LINE = 128
"""Bytes between words that different threads write: two cache lines, since processors fetch neighbours in pairs."""

POOL = {"epoch": 0 * LINE, "sleepers": 1 * LINE, "arrived": 2 * LINE, "phase": 3 * LINE,
        "stop": 4 * LINE, "threads": 4 * LINE + 4, "program": 4 * LINE + 8, "home": 4 * LINE + 16}
"""Byte offsets in a pool: 32-bit integers, and one pointer, the program. What shares a line does not change in a run."""
POOL_BYTES = 5 * LINE

MASK_BYTES = 128
"""Of a set of CPUs: 1024 of them."""

LIMITS = {"looks": 256, "later_looks": 16, "away": 5_000, "idle": 1_000_000}
"""How often a word is looked at before the CPU is given away, first and later; how many ns that takes if others want it; how
many ns a worker waits before it sleeps."""


@dataclass(frozen=True)
class Architecture:
    """What the launch code must know of an architecture: an intrinsic that takes a moment, and Linux's numbers of system calls."""

    pause: str
    futex: int
    set_affinity: int
    get_affinity: int


ARCHITECTURES = {
    "x86_64": Architecture("llvm.x86.sse2.pause()", 202, 203, 204),
    "aarch64": Architecture("llvm.aarch64.isb(i32 15)", 98, 122, 123),  # `yield` takes no time on most cores, `isb` does
}

CODE = Template("""
declare i32 @sched_yield()
declare i32 @clock_gettime(i32, ptr)
declare i64 @syscall(i64, ...)
declare i32 @sched_getcpu()

; Monotonic time in nanoseconds.
define internal i64 @clock() nounwind {
  %time = alloca [2 x i64], align 8
  %status = call i32 @clock_gettime(i32 1, ptr %time)
  %seconds = load i64, ptr %time, align 8
  %rest = getelementptr i64, ptr %time, i64 1
  %nanoseconds = load i64, ptr %rest, align 8
  %scaled = mul i64 %seconds, 1000000000
  %sum = add i64 %scaled, %nanoseconds
  ret i64 %sum
}

; True as soon as a word is not `old`; false if it still is after about `limit` nanoseconds. `crowded` is the thread's
; own note of whether others wanted its CPU when it last gave it away.
define internal i1 @await(ptr %word, i32 %old, i64 %limit, ptr %crowded) noinline nounwind {
enter:
  %busy = load i1, ptr %crowded, align 1
  %patience.first = select i1 %busy, i64 $later_looks, i64 $looks
  br label %turn
turn:
  %start = phi i64 [ -1, %enter ], [ %first, %late ]
  %patience = phi i64 [ %patience.first, %enter ], [ $later_looks, %late ]
  br label %look
look:
  %looks = phi i64 [ 0, %turn ], [ %more, %pause ]
  %current = load atomic i32, ptr %word acquire, align 4
  %moved = icmp ne i32 %current, %old
  br i1 %moved, label %yes, label %pause
pause:
  call void @$pause
  %more = add i64 %looks, 1
  %patient = icmp ult i64 %more, %patience
  br i1 %patient, label %look, label %late
late:
  %before = call i64 @clock()
  %status = call i32 @sched_yield()
  %now = call i64 @clock()
  %away = sub i64 %now, %before
  %wanted = icmp sgt i64 %away, $away
  store i1 %wanted, ptr %crowded, align 1
  %unset = icmp slt i64 %start, 0
  %first = select i1 %unset, i64 %now, i64 %start
  %waited = sub i64 %now, %first
  %over = icmp sge i64 %waited, %limit
  br i1 %over, label %no, label %turn
yes:
  ret i1 true
no:
  ret i1 false
}

; Returns once all threads of the pool are here.
define internal void @barrier(ptr %pool, ptr %crowded) nounwind {
  %phase = getelementptr i8, ptr %pool, i64 $phase
  %arrived = getelementptr i8, ptr %pool, i64 $arrived
  %threads.place = getelementptr i8, ptr %pool, i64 $threads
  %threads = load i32, ptr %threads.place, align 4
  %old = load atomic i32, ptr %phase monotonic, align 4
  %before = atomicrmw add ptr %arrived, i32 1 acq_rel, align 4
  %count = add i32 %before, 1
  %last = icmp eq i32 %count, %threads
  br i1 %last, label %open, label %wait
open:
  store atomic i32 0, ptr %arrived monotonic, align 4
  %new = add i32 %old, 1
  store atomic i32 %new, ptr %phase release, align 4
  ret void
wait:
  %moved = call i1 @await(ptr %phase, i32 %old, i64 9223372036854775807, ptr %crowded)
  ret void
}

; One thread's share of a program.
define internal void @run(ptr %pool, ptr %program, i64 %thread, ptr %crowded) nounwind {
enter:
  %calls = load i64, ptr %program, align 8
  %times.place = getelementptr i64, ptr %program, i64 1
  %times = load ptr, ptr %times.place, align 8
  %wanted = icmp ne ptr %times, null
  %first = icmp eq i64 %thread, 0
  %timed = and i1 %wanted, %first
  br i1 %timed, label %begin, label %next
begin:
  %start = call i64 @clock()
  store i64 %start, ptr %times, align 8
  br label %next
next:
  %number = phi i64 [ 0, %enter ], [ 0, %begin ], [ %following, %done ], [ %following, %stamp ]
  %finished = icmp eq i64 %number, %calls
  br i1 %finished, label %end, label %call
call:
  %following = add i64 %number, 1
  %words = mul i64 %number, 4
  %word = add i64 %words, 2
  %record = getelementptr i64, ptr %program, i64 %word
  %slots.place = getelementptr i64, ptr %record, i64 1
  %boundaries.place = getelementptr i64, ptr %record, i64 2
  %barrier.place = getelementptr i64, ptr %record, i64 3
  %function = load ptr, ptr %record, align 8
  %slots = load ptr, ptr %slots.place, align 8
  %boundaries = load ptr, ptr %boundaries.place, align 8
  %barrier = load i64, ptr %barrier.place, align 8
  %low.place = getelementptr i64, ptr %boundaries, i64 %thread
  %high.place = getelementptr i64, ptr %low.place, i64 1
  %low = load i64, ptr %low.place, align 8
  %high = load i64, ptr %high.place, align 8
  %some = icmp slt i64 %low, %high
  br i1 %some, label %work, label %meet
work:
  call void %function(ptr %slots, i64 %low, i64 %high, i64 %thread)
  br label %meet
meet:
  %must = icmp ne i64 %barrier, 0
  br i1 %must, label %join, label %done
join:
  call void @barrier(ptr %pool, ptr %crowded)
  br label %done
done:
  br i1 %timed, label %stamp, label %next
stamp:
  %now = call i64 @clock()
  %time = getelementptr i64, ptr %times, i64 %following
  store i64 %now, ptr %time, align 8
  br label %next
end:
  ret void
}

; Moves the epoch on and wakes whoever sleeps.
define internal void @signal(ptr %pool) nounwind {
  %epoch = getelementptr i8, ptr %pool, i64 $epoch
  %sleepers.place = getelementptr i8, ptr %pool, i64 $sleepers
  %before = atomicrmw add ptr %epoch, i32 1 seq_cst, align 4
  %sleepers = load atomic i32, ptr %sleepers.place seq_cst, align 4
  %asleep = icmp ne i32 %sleepers, 0
  br i1 %asleep, label %wake, label %done
wake: ; FUTEX_WAKE | FUTEX_PRIVATE_FLAG, everyone
  %woken = call i64 (i64, ...) @syscall(i64 $futex, ptr %epoch, i64 129, i64 2147483647)
  ret void
done:
  ret void
}

; Runs a program as thread 0, with the pool's workers; returns when all is done.
define void @zellige_launch(ptr %pool, ptr %program) nounwind {
  %crowded = alloca i1, align 1
  store i1 false, ptr %crowded, align 1
  %calls = load i64, ptr %program, align 8
  %empty = icmp eq i64 %calls, 0
  br i1 %empty, label %done, label %start
start:
  %program.place = getelementptr i8, ptr %pool, i64 $program
  store ptr %program, ptr %program.place, align 8
  %home = getelementptr i8, ptr %pool, i64 $home
  %here = call i32 @sched_getcpu()
  store i32 %here, ptr %home, align 4
  call void @signal(ptr %pool)
  call void @run(ptr %pool, ptr %program, i64 0, ptr %crowded)
  ret void
done:
  ret void
}

; Leaves the CPU that the launch came from, if there is another one that this thread may run on. Systems of more CPUs than
; the mask has bits, or none that can be told, leave everything as it is.
define internal void @part(ptr %pool) noinline nounwind {
enter:
  %mask = alloca [$mask_bytes x i8], align 8
  %home.place = getelementptr i8, ptr %pool, i64 $home
  %home = load i32, ptr %home.place, align 4
  %here = call i32 @sched_getcpu()
  %together = icmp eq i32 %here, %home
  %known = icmp sge i32 %here, 0
  %asked = and i1 %together, %known
  br i1 %asked, label %ask, label %done
ask:
  %size = call i64 (i64, ...) @syscall(i64 $get_affinity, i64 0, i64 $mask_bytes, ptr %mask)
  %answered = icmp sgt i64 %size, 0
  br i1 %answered, label %exclude, label %done
exclude:
  %number = zext i32 %here to i64
  %byte = lshr i64 %number, 3
  %place = getelementptr i8, ptr %mask, i64 %byte
  %before = load i8, ptr %place, align 1
  %low = and i32 %here, 7
  %shift = trunc i32 %low to i8
  %bit = shl i8 1, %shift
  %others = xor i8 %bit, -1
  %without = and i8 %before, %others
  store i8 %without, ptr %place, align 1
  br label %look
look:
  %index = phi i64 [ 0, %exclude ], [ %next, %look ]
  %any = phi i8 [ 0, %exclude ], [ %so.far, %look ]
  %one.place = getelementptr i8, ptr %mask, i64 %index
  %one = load i8, ptr %one.place, align 1
  %so.far = or i8 %any, %one
  %next = add i64 %index, 1
  %more = icmp ult i64 %next, %size
  br i1 %more, label %look, label %looked
looked:
  %elsewhere = icmp ne i8 %so.far, 0
  br i1 %elsewhere, label %move, label %done
move:
  %moved = call i64 (i64, ...) @syscall(i64 $set_affinity, i64 0, i64 %size, ptr %mask)
  store i8 %before, ptr %place, align 1
  %allowed = call i64 (i64, ...) @syscall(i64 $set_affinity, i64 0, i64 %size, ptr %mask)
  ret void
done:
  ret void
}

; Ends the pool's workers as soon as they are idle; does not wait for it.
define void @zellige_stop(ptr %pool) nounwind {
  %stop = getelementptr i8, ptr %pool, i64 $stop
  store atomic i32 1, ptr %stop monotonic, align 4
  call void @signal(ptr %pool)
  ret void
}

; The life of a worker of a new pool, whose epoch is 0: runs its share of every program until the pool stops.
define void @zellige_worker(ptr %pool, i64 %thread) nounwind {
enter:
  %epoch = getelementptr i8, ptr %pool, i64 $epoch
  %sleepers = getelementptr i8, ptr %pool, i64 $sleepers
  %stop = getelementptr i8, ptr %pool, i64 $stop
  %program.place = getelementptr i8, ptr %pool, i64 $program
  %crowded = alloca i1, align 1
  store i1 false, ptr %crowded, align 1
  br label %idle
idle:
  %seen = phi i32 [ 0, %enter ], [ %current, %work ]
  %busy = load i1, ptr %crowded, align 1
  br i1 %busy, label %tired, label %wait
wait:
  %moved = call i1 @await(ptr %epoch, i32 %seen, i64 $idle, ptr %crowded)
  br i1 %moved, label %awake, label %tired
tired:
  store i1 false, ptr %crowded, align 1
  %others = atomicrmw add ptr %sleepers, i32 1 seq_cst, align 4
  br label %check
check:
  %latest = load atomic i32, ptr %epoch seq_cst, align 4
  %same = icmp eq i32 %latest, %seen
  br i1 %same, label %sleep, label %risen
sleep: ; FUTEX_WAIT | FUTEX_PRIVATE_FLAG, no time limit
  %expected = sext i32 %seen to i64
  %status = call i64 (i64, ...) @syscall(i64 $futex, ptr %epoch, i64 128, i64 %expected, ptr null)
  br label %check
risen:
  %left = atomicrmw sub ptr %sleepers, i32 1 seq_cst, align 4
  br label %awake
awake:
  %current = load atomic i32, ptr %epoch acquire, align 4
  %stopped = load atomic i32, ptr %stop monotonic, align 4
  %ended = icmp ne i32 %stopped, 0
  br i1 %ended, label %end, label %work
work:
  call void @part(ptr %pool)
  %program = load ptr, ptr %program.place, align 8
  call void @run(ptr %pool, ptr %program, i64 %thread, ptr %crowded)
  br label %idle
end:
  ret void
}
""")


def runtime_ir(isa: Isa) -> str:
    """The launch code for an instruction set's architecture."""
    name = isa.triple.split("-")[0]
    if name not in ARCHITECTURES:
        raise CompileError(f"launch code exists for {' and '.join(ARCHITECTURES)}, not for {name} ({isa.name})")
    architecture = ARCHITECTURES[name]
    return CODE.substitute(POOL, **LIMITS, mask_bytes=MASK_BYTES, **asdict(architecture))


class Runtime:
    """The launch code, loaded: three functions that let other Python threads run while they do."""

    def __init__(self, library: Library):
        self.library = library
        two_pointers = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
        self.launch = two_pointers(library.address("zellige_launch"))
        self.stop = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(library.address("zellige_stop"))
        self.worker = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(library.address("zellige_worker"))


@cache
def runtime() -> Runtime:
    """This process's launch code, from the cache of machine code when it is first needed, and kept to the end."""
    isa = host.host_isa()
    return Runtime(MachineCodeCache().build(runtime_ir(isa), isa))
