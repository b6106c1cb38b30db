"""Compile kernels for GPUs that are not there, and read what the assembler says of them.

    python tests/cuda/offline.py CAPABILITY CASE…

prints a line of JSON for each case: a dictionary of constexprs, warps, stages and dtype. It runs by itself, without the
interpreter, in a process that imports neither torch nor the rest of Zellige: so any version
of Triton can be tried by putting it on the path.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

KERNEL = Path(__file__).parents[2] / "zellige" / "cuda" / "kernel.py"
ASSEMBLERS = {100: "ptxas-blackwell"}
POINTERS = {"units": "i32", "rows": "i32", "pieces": "i32", "tickets": "i32", "partials": "fp32"}
CONSTANTS = {"TILE": 128, "STEP": 64, "UNIT": 1, "TOKENS": 128, "X_FEATURES": True, "Y_FEATURES": True, "X_BOXES": False,
             "W_BOXES": False, "RAGGED": False, "SPLIT": False, "WIDTH": 16, "ACTIVATION": "none", "BIAS": True, "RESIDUAL": True}
WORDS = ("wgmma.mma_async", "mma.sync", "tcgen05.mma", "cp.async.cg.shared.global", "cp.async.bulk.tensor", "ld.global.b16")


def compile_case(capability: int, warps: int = 8, stages: int = 3, dtype: str = "bf16", **choices: Any) -> dict[str, int]:
    """Registers, spilled bytes, shared memory, and how often some instructions stand in the PTX."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    spec = importlib.util.spec_from_file_location("kernel", KERNEL)
    assert spec is not None and spec.loader is not None
    kernel = importlib.util.module_from_spec(spec)
    sys.modules["kernel"] = kernel
    spec.loader.exec_module(kernel)

    constants = CONSTANTS | choices  # a number that is 1 is a constant of the compiled kernel, as ``tokens`` may be
    names = kernel.tile_product.arg_names
    signature = dict.fromkeys(names, "i32")
    signature |= dict.fromkeys(("x", "values", "y", "bias", "residual"), "*" + dtype)
    signature |= {name: "*" + kind for name, kind in POINTERS.items()} | dict.fromkeys(constants, "constexpr")
    if constants["X_BOXES"]:
        box = [constants["STEP"], constants["TOKENS"]]
        signature["x"] = f"tensordesc<{dtype}{box if constants['X_FEATURES'] else box[::-1]}>".replace(" ", "")
    if constants["W_BOXES"]:
        signature["values"] = f"tensordesc<{dtype}[{constants['TILE']},{constants['STEP']}]>"
    aligned = {(number,): [["tt.divisibility", 16]] for number, name in enumerate(names)
               if signature[name][0] in "*i" and name != "piece_count"}
    source = ASTSource(kernel.tile_product, signature, {(names.index(name),): value for name, value in constants.items()}, aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps, "num_stages": stages})
    text = compiled.asm["ptx"]
    return assemble(text, capability) | {"shared": compiled.metadata.shared} | {word: text.count(word) for word in WORDS}


def assemble(text: str, capability: int) -> dict[str, int]:
    import triton

    assembler = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / ASSEMBLERS.get(capability, "ptxas")
    found = re.search(r"\.target (sm_\w+)", text)
    assert found is not None
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "kernel.ptx")
        path.write_text(text)
        done = subprocess.run([assembler, "-v", "-arch", found[1], path, "-o", "/dev/null"],
                              capture_output=True, text=True, check=True)
    registers, spilled = (re.search(pattern, done.stderr) for pattern in (r"Used (\d+) registers", r"(\d+) bytes spill stores"))
    assert registers is not None and spilled is not None, done.stderr
    return {"registers": int(registers[1]), "spilled": int(spilled[1])}


if __name__ == "__main__":
    for case in sys.argv[2:]:
        print(json.dumps(compile_case(int(sys.argv[1]), **json.loads(case))), flush=True)
