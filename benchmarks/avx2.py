"""Measure a network on AVX2 alone, against the rivals that can be held to it, and write one JSON file to ``benchmarks/results``.

    python benchmarks/avx2.py                                       # ResNet-50 at 50 %
    python benchmarks/avx2.py --model torchvision:vgg16 --sparsity 0.75

For processors without AVX-512, measured on one that has it. Zellige compiles for ``cpu:x86-64-v3``. What holds the others is
read when their libraries are loaded, so the script starts itself anew with it: ``ONEDNN_MAX_CPU_ISA`` for the convolutions of
OpenVINO and PyTorch, ``ATEN_CPU_CAPABILITY`` for PyTorch's own kernels and what Inductor generates, ``MKL_ENABLE_INSTRUCTIONS``
for its matrix products. Inductor gets a cache of its own, as it does not tell AVX2's code from AVX-512's. onnxruntime and ncnn
choose by the processor and have no such switch: they are left out. Which primitives OpenVINO then chose goes into the file; if
a convolution among them uses more than AVX2, nothing is measured.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch

from zellige.bench.compare import compare
from zellige.bench.rivals.onnx_file import onnx_file
from zellige.bench.subject import Subject, as_it_is, pruned_subject
from zellige.cpu.host import usable_cpus
from zellige.errors import BenchmarkError, ZelligeError
from zellige.models import resolve
from zellige.pack.atomic import write_atomically
from zellige.patterns import parse_pattern

RESULTS = Path(__file__).parent / "results"
HELD = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
RIVALS = ("openvino", "torch", "torch-compile")
WIDER = ("avx512", "amx")


def openvino_primitives(subject: Subject) -> dict[str, int]:
    """The kernels that OpenVINO runs the dense network with, and how often each."""
    import openvino

    core = openvino.Core()
    with onnx_file(subject.dense, subject.inputs) as path:
        compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    facts = (node.get_rt_info() for node in compiled.get_runtime_model().get_ops())
    names = (str(node["primitiveType"].astype(str)) for node in facts if "primitiveType" in node)
    return dict(Counter(name for name in names if not name.startswith("unknown")).most_common())


def check_held(primitives: dict[str, int]) -> None:
    """Raise ``BenchmarkError`` unless the rivals keep to AVX2 where the time goes."""
    capability = torch.backends.cpu.get_cpu_capability()
    wide = [name for name in primitives if any(word in name for word in WIDER) and ("conv" in name or "gemm" in name)]
    if capability != "AVX2" or wide:
        raise BenchmarkError(f"the rivals are not held to AVX2: PyTorch uses {capability}, OpenVINO {', '.join(wide) or 'AVX2'}")


def measure(model: str, pattern: str, sparsity: float, batch: int, threads: int, rounds: int) -> bytes:
    """Run the comparison; returns its JSON."""
    named = resolve(model, batch=batch)
    subject = pruned_subject(named, parse_pattern(pattern), sparsity) if sparsity else as_it_is(named)
    primitives = openvino_primitives(subject)
    check_held(primitives)
    found = compare(subject, threads, against=RIVALS, rounds=rounds, target="cpu:x86-64-v3")
    comparison = replace(found, conditions={**found.conditions, "held_by": HELD, "openvino_primitives": primitives})
    print(f"\n{comparison.tables()[0]}\n\n{comparison.summary()}", flush=True)
    return comparison.to_json().encode()


def main() -> int:
    """Measure one network; returns the exit status."""
    parser = argparse.ArgumentParser(description="Benchmark a network on AVX2 alone.")
    parser.add_argument("--model", default="torchvision:resnet50")
    parser.add_argument("--pattern", default="block:8x8")
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=usable_cpus())
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in HELD.items()):
        with tempfile.TemporaryDirectory() as cache:
            environment = os.environ | HELD | {"TORCHINDUCTOR_CACHE_DIR": cache}
            return subprocess.run([sys.executable, *sys.argv], env=environment, check=False).returncode
    how = f"{asked.pattern.replace(':', '')}-{asked.sparsity * 100:.0f}" if asked.sparsity else "dense"
    file = asked.results / f"avx2-{asked.model.partition(':')[2].replace('_', '-')}-{how}-batch{asked.batch}.json"
    try:
        write_atomically(file, [measure(asked.model, asked.pattern, asked.sparsity, asked.batch, asked.threads, asked.rounds)])
    except ZelligeError as error:
        print(f"{file.name}: {error}", file=sys.stderr)
        return 1
    print(f"{file.name} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
