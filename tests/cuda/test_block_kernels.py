"""What the kernels of blocks have in common: what the compiler makes of them, and what a launch gives them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ctypes import c_int, c_longlong
from importlib.resources import files
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from block_weights import ROWS_OF, filters_in

from zellige.cuda.kernels import nvrtc
from zellige.cuda.kernels.config import shared_limit
from zellige.cuda.kernels.launch import Boxes, PixelBoxes
from zellige.cuda.kernels.nvrtc import machine_code, sources
from zellige.cuda.operators import block_convolution, block_product
from zellige.cuda.operators.block_product import BlockKernel, kernels
from zellige.cuda.tiling.convolution_tiles import Window
from zellige.errors import CompileError

FORMS = {"plain": {}, "e4m3": {"e4m3": True}, "2:4": {"two_four": True}, "paired": {"paired": True}}
"""What is multiplied, as the kernels' definitions have it."""


def compilations() -> Iterator[Any]:
    """Every kernel in the form that spills first; others when all is run."""
    for entry in (block_product.ENTRY, block_convolution.ENTRY):
        for form in FORMS if entry == block_product.ENTRY else ("plain", "2:4", "paired"):
            for kernel in kernels(form == "2:4"):
                for dtype in (torch.bfloat16, torch.float16):
                    often = dtype == torch.bfloat16 and (entry == block_product.ENTRY or form == "plain")
                    yield pytest.param(entry, form, kernel, dtype, marks=[] if often else [pytest.mark.full],
                                       id=f"{entry} {form} {kernel.tokens}x{kernel.stages} {dtype}")


@pytest.mark.parametrize("entry, form, kernel, dtype", compilations())
def test_what_the_compiler_makes_of_it(entry: str, form: str, kernel: BlockKernel, dtype: torch.dtype) -> None:
    """Sums stay in registers (two words of the loop over tiles may not), products are not put one after the other, and the ring
    fits a multiprocessor."""
    assert kernel.shared_bytes(form == "2:4") <= shared_limit(90)
    try:
        log = machine_code(f"{entry}.cu", "sm_90a", kernel.defines(dtype, "gelu", **FORMS[form])).log
    except CompileError as error:
        if "need" in str(error):
            pytest.skip(f"compiling CUDA C++ needs NVRTC: {error}")
        raise
    registers, spilled = re.search(r"Used (\d+) registers", log), re.search(r"(\d+) bytes spill stores", log)
    assert registers and int(registers[1]) <= 168 and spilled and int(spilled[1]) <= 8, log
    assert "serializ" not in log.lower()


@pytest.mark.parametrize("edit", [("    begin_products();\n#pragma unroll", "#pragma unroll"),
                                  ("before = ring.stage;", "before = ring.stage, sums[0][0] += 1.0f;")])
def test_the_compiler_tells_of_products_one_after_the_other(edit: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a fence is missing, or sums are touched between products: so that its silence means something."""
    texts = tuple((name, text.replace(*edit)) for name, text in sources(f"{block_product.ENTRY}.cu"))
    monkeypatch.setattr(nvrtc, "sources", lambda _: texts)
    try:
        log = machine_code.__wrapped__(f"{block_product.ENTRY}.cu", "sm_90a", KERNEL.defines(torch.bfloat16, "none")).log
    except CompileError as error:
        if "need" in str(error):
            pytest.skip(f"compiling CUDA C++ needs NVRTC: {error}")
        raise
    assert "serializ" in log.lower()


SAME = Window((3, 3), padding=(1, 1))
KERNEL = BlockKernel(192, 4, 1)
KINDS = {"TensorMap": (Boxes, PixelBoxes), "int": (c_int,), "long": (c_longlong,)}
"""What is given for a kernel's parameter; pointers are tensors."""


@pytest.mark.parametrize("form", ["plain", "2:4", "paired"])
@pytest.mark.parametrize("window, entry", [(SAME, block_convolution.ENTRY), (Window((1, 1), (2, 1)), block_convolution.ENTRY),
                                           (Window((1, 1)), block_product.ENTRY)])
def test_kernels_are_given_what_they_take(window: Window, entry: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every launch, its arguments are of the kernel's parameters' kinds, in their order; a plain product is one."""
    given: list[Any] = []
    properties = SimpleNamespace(multi_processor_count=3)
    monkeypatch.setattr(block_product.torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(block_product, "loaded", lambda source, name, defines, *_: (source, name, dict(defines)))
    monkeypatch.setattr(block_product, "launch", lambda *arguments: given.extend(arguments))
    x, bias = torch.ones(2, 7, 9, 64, dtype=torch.bfloat16), torch.ones(128, dtype=torch.bfloat16)
    kept = torch.arange(64)[:, None, None] % 2 == 0
    weight, tile = filters_in(form, torch.ones(128, 64, *window.kernel).mul(kept).bfloat16(), window), ROWS_OF[form]
    y = x.new_empty(block_convolution.result_shape(x, 128, window))
    block_convolution.launch(weight, x, y, bias, y.clone(), "relu", KERNEL)
    kernel, blocks, _, shared_bytes, arguments, _ = given
    assert kernel == (f"{entry}.cu", entry, dict(KERNEL.defines(torch.bfloat16, "relu", **FORMS[form])))
    assert shared_bytes == KERNEL.shared_bytes(form == "2:4")
    assert blocks == -(-y[..., 0].numel() // KERNEL.tokens)
    text = files("zellige.cuda.kernels").joinpath(f"{entry}.cu").read_text()
    parameters = re.search(entry + r"\((.*?)\)\n", text, re.DOTALL)
    assert parameters
    kinds = KINDS | {"Weight": (torch.Tensor,) if form == "2:4" else (Boxes,)}
    for parameter, argument in zip(parameters[1].replace("const ", "").split(","), arguments, strict=True):
        wanted = (torch.Tensor,) if "*" in parameter else kinds[parameter.split()[-2]]
        if "scale" in parameter or ("halves" in parameter and form != "paired"):  # of e4m3 alone, of paired blocks alone
            wanted = (type(None),)
        assert isinstance(argument, wanted), (parameter, argument)
    assert form == "2:4" or arguments[1].rows == tile
    names = [parameter.split()[-1].lstrip("*") for parameter in parameters[1].split(",")]
    numbers = {name: argument.value for name, argument in zip(names, arguments, strict=True) if isinstance(argument, c_int)}
    expected = {"row_count": 128, "tokens": y[..., 0].numel(), "tile_count": 1, "token_blocks": blocks, "width": KERNEL.width}
    if entry == block_convolution.ENTRY:
        expected |= {"out_height": y.shape[1], "out_width": y.shape[2]}
        expected |= dict(zip(("down", "right", "above", "before"), (*window.stride, *window.padding), strict=True))
    assert numbers == expected
