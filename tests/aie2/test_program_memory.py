"""The kernel's size, estimated: cores have 16 KB of program memory, and no compiler for them could be had.

What g++ makes of it for size is counted in its last form before there are registers (GIMPLE): each statement as one full
instruction, though most are shorter and some would share one. Calls of the AIE API stay calls, each a number of instructions;
conversions between integers and pointers are none where both have 32 bits. Loops over tiles count once, though they may be
written out.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from zellige.aie2 import compiled

FLAGS = ("-std=c++20", "-Os", "-fno-unroll-loops", "-fno-tree-vectorize", "-fno-ipa-cp", "-fno-ipa-sra", "-w",
         "-DAIE_EMULATION_APART")
INSTRUCTION = 16
"""Bytes of a full one."""

SEVERAL = {r"aie::(mul|mac)<16>": 8, r"aie::accum<acc64, 16>::to_vector": 2, r"aie::load_v<64": 2, r"aie::concat": 2}
"""Calls that are more than one instruction: products of 32 × 32 bits are sums of narrower ones, 16 lanes of 64 bits are two
registers."""

STATEMENT = re.compile(r"  (?:if |(?!goto|else)[^ #<].*;(?: \[.*\])?$)")
CONVERSION = re.compile(r"  \S+ = \([\w ]+\*?\) \S+;")
LIMIT = 15 * 1024
"""Of 16 KB: some is left for the loop around the kernel and for what starts it."""


def instructions(dump: str) -> int:
    """Of all functions but the API's own."""
    total = 0
    for function in dump.split(";; Function ")[1:]:
        if function.startswith("aie::"):
            continue
        for line in function.split("<bb ", 1)[1].splitlines():
            if STATEMENT.match(line) and not CONVERSION.match(line) and "CLOBBER" not in line:
                total += next((count for call, count in SEVERAL.items() if re.search(call, line)), 1)
    return total


@pytest.mark.skipif(shutil.which("g++") is None,
                    reason="the kernel's size isn't estimated: there is no g++ (Debian: apt-get install g++)")
def test_the_kernel_should_fit_a_core(tmp_path: Path) -> None:
    compiled._gcc(*FLAGS, f"-I{compiled.EMULATION}", "-c", str(compiled.KERNELS / compiled.SOURCE), "-o", str(tmp_path / "step.o"),
                  f"-fdump-tree-optimized={tmp_path / 'dump'}")
    size = INSTRUCTION * instructions((tmp_path / "dump").read_text())
    assert 8 * 1024 < size <= LIMIT
