"""Compile kernels for GPUs that are not there, and read what the assembler says of them.

    python tests/cuda/offline.py CAPABILITY CASE…

prints a line of JSON for each case: a dictionary of constexprs, warps, stages, dtype and which kernel. It runs by itself, without
the interpreter, in a process that imports neither torch nor any of Zellige but the kernels: so any version of Triton can be
tried by putting it on the path.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ASSEMBLERS = {100: "ptxas-blackwell"}
POINTERS = {"units": "i32", "channels": "i32", "taps": "i32", "rows": "i32", "pieces": "i32", "chunks": "i32", "tickets": "i32",
            "partials": "fp32"}
NUMBERS = ("x", "dy", "values", "y", "bias", "weight", "residual", "gradient")
OWN = {"features": {}, "e4m3": {"y": "fp8e4nv", "scale": "fp32", "partials": "i32"}}
"""What is a pointer in some files, to what: "rows" is a number among features."""
SCALARS = {"epsilon": "fp32", "scale": "fp32"}
TILES = {"TILE": 128, "STEP": 64, "UNIT": 1, "TOKENS": 128, "X_FEATURES": True, "Y_FEATURES": True, "W_BOXES": False,
         "RAGGED": False, "SPLIT": False, "WIDTH": 16, "EIGHTS": False, "ACTIVATION": "none", "BIAS": True, "RESIDUAL": True}
KERNELS = {
    "tile_product": ("tile_product", TILES | {"X_BOXES": False}),
    "tile_convolution": ("convolution", TILES | {"UNIT": 8, "X_FEATURES": False, "Y_FEATURES": False, "STRIDE_Y": 1,
                                                        "STRIDE_X": 1, "PAD_Y": 1, "PAD_X": 1, "ALIGNED": 8}),
    "layer_norm": ("features", {"TOKENS": 16, "FEATURES": 1024, "X_FEATURES": True, "Y_FEATURES": True, "WEIGHT": True,
                                "BIAS": True}),
    "attention": ("features", {"WIDTH": 64, "QUERIES": 64, "KEYS": 64}),
    "transposition": ("features", {"ROWS": 64, "COLUMNS": 64}),
    "tile_gradient": ("gradient", {"TILE": 128, "STEP": 64, "UNIT": 1, "WIDE": 128, "TOKENS": 64, "X_FEATURES": True,
                                          "RAGGED": False}),
    "largest_magnitude": ("e4m3", {"PROGRAMS": 512, "CHUNK": 8192}),
    "rounded_by_largest": ("e4m3", {"PROGRAMS": 512, "CHUNK": 8192}),
    "rounded_by_scale": ("e4m3", {"CHUNK": 8192}),
}
"""Name → the file that has it, and its constants."""

WORDS = ("wgmma.mma_async", "mma.sync", "tcgen05.mma", "cp.async.cg.shared.global", "cp.async.bulk.tensor", "ld.global.b16",
         "st.global.v4", "cvt.rn.satfinite.e4m3x2.f32", ".v4.b32")


def compile_case(capability: int, warps: int = 8, stages: int = 3, dtype: str = "bf16", kernel: str = "tile_product",
                 **choices: Any) -> dict[str, int]:
    """Registers, spilled bytes, shared memory, and how often some instructions stand in the PTX."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    file, defaults = KERNELS[kernel]
    function = getattr(importlib.import_module(f"zellige.cuda.kernels.{file}"), kernel)
    constants = defaults | choices  # a number that is 1 is a constant of the compiled kernel, as ``tokens`` may be
    names = function.arg_names
    signature = dict.fromkeys(names, "i32")
    signature |= dict.fromkeys(NUMBERS, "*" + dtype)
    signature |= SCALARS | {name: "*" + kind for name, kind in OWN.get(file, POINTERS).items()}
    signature |= dict.fromkeys(constants, "constexpr")
    signature = {name: signature[name] for name in names}
    if constants.get("X_BOXES"):
        box = [constants["STEP"], constants["TOKENS"]]
        signature["x"] = f"tensordesc<{dtype}{box if constants['X_FEATURES'] else box[::-1]}>".replace(" ", "")
    if constants.get("W_BOXES"):
        signature["values"] = f"tensordesc<{dtype}[{constants['TILE']},{constants['STEP']}]>"
    aligned = {(number,): [["tt.divisibility", 16]] for number, name in enumerate(names)
               if signature[name][0] in "*i" and name not in _unspecialized(function)}
    source = ASTSource(function, signature, {(names.index(name),): value for name, value in constants.items()}, aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps, "num_stages": stages})
    text = compiled.asm["ptx"]
    return assemble(text, capability) | {"shared": compiled.metadata.shared} | {word: text.count(word) for word in WORDS}


def _unspecialized(function: Any) -> set[str]:
    """Numbers whose divisibility the kernel does not ask for."""
    return {parameter.name for parameter in function.params if parameter.do_not_specialize}


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
    sys.path.insert(0, str(ROOT))
    for case in sys.argv[2:]:
        print(json.dumps(compile_case(int(sys.argv[1]), **json.loads(case))), flush=True)
