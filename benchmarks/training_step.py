"""What holding zeros costs: a training step with masks over one without, of the same networks on the same batches.

    python benchmarks/training_step.py                  # two threads; run it on an otherwise idle machine
    python benchmarks/training_step.py --device cuda    # larger networks, autocast to bfloat16

Two copies of a network take turns, round after round; one of them is pruned in 8×8 blocks at 50 %, and after each step its zeros
are written again, in the weights and in AdamW's moments, as ``zl.finetune`` does. What it costs is the median of the ratios
within a round. Random data: a step takes no heed of it.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from accuracy_networks import BYTES, CLASSES, SmallGPT, residual, vgg
from result_file import RESULTS, conditions, write_result
from torch import nn
from torch.nn.functional import cross_entropy

import zellige as zl
from zellige.bench.clock import Turn, ratio, run_rounds
from zellige.models import resolve

ROUNDS = 15
TURN = Turn(idle_seconds=0.01, discarded_calls=1, least_calls=3, least_seconds=0.0)
Case = tuple[Callable[[], nn.Module], Callable[[], tuple[torch.Tensor, torch.Tensor]]]


def images(count: int, channels: int, side: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(count, channels, side, side), torch.randint(classes, (count,))


def text(count: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    both = torch.randint(BYTES, (2, count, length))
    return both[0], both[1]


CASES: dict[str, Case] = {
    "residual network on digits, 64 images of 32²": (residual, lambda: images(64, 1, 32, CLASSES)),
    "VGG-like network on digits, 64 images of 32²": (vgg, lambda: images(64, 1, 32, CLASSES)),
    "small GPT, 32 texts of 128 bytes": (SmallGPT, lambda: text(32, 128)),
    "ResNet-18, 8 images of 224²": (lambda: resolve("torchvision:resnet18").model, lambda: images(8, 3, 224, 1000)),
}
GPU_CASES: dict[str, Case] = {
    "ResNet-50, 128 images of 224²": (lambda: resolve("torchvision:resnet50").model, lambda: images(128, 3, 224, 1000)),
    "GPT of 57 million parameters, 32 texts of 512 bytes": (partial(SmallGPT, 768, 8, 12, 512), lambda: text(32, 512)),
}


def step_of(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], sparse: bool) -> Callable[[], None]:
    """A training step, on weights that change meanwhile as they do; on a GPU in bfloat16, images with their channels last."""
    device = batch[0].device.type
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    sparsifier = zl.Sparsifier.of_zeros(model, optimizer) if sparse else None
    inputs, labels = batch

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = cross_entropy(model(inputs).flatten(0, -2), labels.flatten())
        loss.backward()
        optimizer.step()
        if sparsifier is not None:
            sparsifier.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def measure(case: Case, device: str) -> dict[str, object]:
    make, data = case
    torch.manual_seed(0)
    dense, (inputs, labels) = make().train(), data()
    sparse = copy.deepcopy(dense)
    zl.prune(sparse, "block:8x8", 0.5, (inputs[:1],))
    batch = inputs.to(device), labels.to(device)
    if device == "cuda" and inputs.ndim == 4:
        dense, sparse = (model.to(memory_format=torch.channels_last) for model in (dense, sparse))
        batch = batch[0].to(memory_format=torch.channels_last), batch[1]
    dense, sparse = dense.to(device), sparse.to(device)
    timings = run_rounds({"dense": step_of(dense, batch, False), "sparse": step_of(sparse.train(), batch, True)}, ROUNDS, TURN)
    found = ratio([timings["sparse"]], timings["dense"])
    return {"dense_ms": timings["dense"].median_ms, "sparse_ms": timings["sparse"].median_ms, "ratio": found.median,
            "quartiles": found.quartiles, "samples": labels.numel()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--results", type=Path, default=RESULTS, help="directory for the result file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    on_gpu = options.device == "cuda"
    rows = []
    for name, case in (GPU_CASES if on_gpu else CASES).items():
        rows.append({"case": name, **measure(case, options.device)})
        print(rows[-1], flush=True)
    found = {**conditions(options.threads, ROUNDS), "rows": rows}
    if on_gpu:
        found["gpu"] = torch.cuda.get_device_name()
    write_result(options.results / f"training-step{'-gpu' if on_gpu else ''}.json", found)


if __name__ == "__main__":
    main()
