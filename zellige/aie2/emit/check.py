"""Emitted MLIR before LLVM's own tools: its syntax, values and types, and every operation against ``dialect.irdl.mlir``.

What ``mlir-opt`` finds is an error; where there is none, so is that. No tool of AMD's is asked.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from zellige.errors import CompileError, FileFormatError

DIALECT = Path(__file__).parent / "dialect.irdl.mlir"
TOOLS = ("mlir-opt-19", "mlir-opt")

STAND_INS = (('"aie.end"() : () -> ()', '"llvm.unreachable"() : () -> ()'), ('"aie.next_bd"()[', '"cf.br"()['))
"""Terminators for those that IRDL can't describe."""


def mlir_opt() -> str | None:
    """LLVM 19's ``mlir-opt``, if there is one."""
    return next(filter(None, map(shutil.which, TOOLS)), None)


def check(text: str, file: str) -> None:
    """Raises ``FileFormatError`` with ``file`` and the line that ``mlir-opt`` refuses, ``CompileError`` if there is none."""
    tool = mlir_opt()
    if tool is None:
        raise CompileError("MLIR is checked by LLVM's mlir-opt, and there is none: install it (Debian: apt-get install "
                           "mlir-19-tools)")
    for terminator, other in STAND_INS:
        text = text.replace(terminator, other)
    command = [tool, f"--irdl-file={DIALECT}", "-o", "/dev/null", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if "error:" in line), "no message")
        raise FileFormatError(said.replace("<stdin>", file))
