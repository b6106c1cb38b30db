"""The whole way, told as it happens: train, prune, fine-tune, compile, verify, bench; then ResNet-50 beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import zellige as zl
from zellige.bench.compare import compare
from zellige.bench.comparison import Comparison
from zellige.bench.subject import Subject, pruned_subject
from zellige.cpu.host import usable_cpus
from zellige.demo.digits import Split, load_digits
from zellige.demo.network import DigitsNetwork
from zellige.demo.trained import TEST_BATCH
from zellige.demo.training import accuracy
from zellige.errors import ZelligeError
from zellige.models import resolve
from zellige.models.weights import save_weights
from zellige.patterns import Block
from zellige.terminal import show, working, write_json
from zellige.train import OptimizerOptions, Recipe
from zellige.train.data.samples import Data
from zellige.train.log import bar

PATTERN, SPARSITY = Block(8, 8), 0.5
TRAINING = Recipe(scheme="dense", epochs=6, optimizer=OptimizerOptions(learning_rate=3e-3), label_smoothing=0.05)
FINE_TUNING = Recipe(scheme="fixed", epochs=8, optimizer=OptimizerOptions(learning_rate=2e-3), label_smoothing=0.05, seed=1)
LARGE_MODEL = "torchvision:resnet50"


def tell(output: Path, threads: int | None = None) -> dict[str, Any]:
    """Run the demonstration, print it, and leave its files in ``output``; returns all its figures as plain data."""
    threads = threads or usable_cpus()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ZelligeError(f"{output} can't be made: {error}") from error
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        figures = _digits(output, threads)
        figures["resnet50"] = _resnet50(output, threads)
    finally:
        torch.set_num_threads(torch_threads)
    print(f"\nAll files are in {output}/.")
    return figures


def _digits(output: Path, threads: int) -> dict[str, Any]:
    training, test = load_digits()
    data = Data("digits", training, test)
    _head("1. Train a small residual network on scikit-learn's handwritten digits")
    print(f"{len(training)} images to train, {len(test)} to test, enlarged to 32×32; threads: {threads}")
    torch.manual_seed(0)
    dense = DigitsNetwork()
    with bar("training") as progress:
        before = _said("dense", zl.finetune(dense, TRAINING, data, progress=progress).accuracy)

    _head(f"2. Prune it: {PATTERN} at {SPARSITY:.0%}; then fine-tune what is left, zeros staying zero")
    pruned = DigitsNetwork()
    pruned.load_state_dict(dense.state_dict())
    example = (test.images[:1],)
    print(zl.prune(pruned.eval(), PATTERN, SPARSITY, example))
    one_shot = _said("right after pruning", accuracy(pruned, test, TEST_BATCH))
    with bar("fine-tuning") as progress:
        tuned = _said("after fine-tuning", zl.finetune(pruned, FINE_TUNING, data, progress=progress).accuracy)
    save_weights(pruned, output / "digits.safetensors")

    _head("3. Compile it, save it, load it, check it")
    with working("compiling"):
        zl.compile(pruned, example, threads=threads).save(output / "digits.zlg")
    engine = zl.load(output / "digits.zlg", threads=threads)
    found = zl.verify(pruned, engine, example)
    compiled = _said("the compiled network, one image at a time", _accuracy_of_engine(engine, test))
    print(f"largest error against PyTorch in float64: {found.max_relative_error:.1e} of the largest output")
    print(f"saved to {output / 'digits.zlg'} ({(output / 'digits.zlg').stat().st_size / 1e6:.2f} MB)")

    _head("4. Time it beside dense engines")
    subject = Subject("digits", str(PATTERN), SPARSITY, pruned, dense, example, "trained just now")
    comparison = _compared(subject, output / "digits-bench.json", threads)
    return {
        "accuracy": {"dense": before, "one_shot": one_shot, "fine_tuned": tuned, "compiled": compiled},
        "file": str(output / "digits.zlg"),
        "digits": comparison.as_dict(),
    }


def _resnet50(output: Path, threads: int) -> dict[str, Any]:
    _head("5. The same for ResNet-50 at 224×224, with random weights: speeds mean something, answers do not")
    with working("building ResNet-50"):
        subject = pruned_subject(resolve(LARGE_MODEL), PATTERN, SPARSITY)
    return _compared(subject, output / "resnet50-bench.json", threads).as_dict()


def _compared(subject: Subject, file: Path, threads: int) -> Comparison:
    with working("preparing") as progress:
        comparison = compare(subject, threads, progress=progress)
    write_json(file, comparison.as_dict())
    for table in comparison.tables():
        show(table)
    print(comparison.summary())
    return comparison


def _accuracy_of_engine(engine: Callable[[np.ndarray], np.ndarray], split: Split) -> float:
    return accuracy(lambda images: torch.from_numpy(np.array(engine(images.contiguous().numpy()))), split, batch=1)


def _said(what: str, share: float | None) -> float:
    assert share is not None
    print(f"accuracy on the test images, {what}: {share:.1%}")
    return share


def _head(text: str) -> None:
    print(f"\n{text}\n{'=' * len(text)}")
