"""Whole networks on a GPU: are they right, and how fast are BERT-base, VGG-16 and ResNet-50, beside PyTorch's best.

Weights are random. 64 sequences of 128 words go into BERT-base, every linear layer of whose encoder is pruned tile-wise; 64 images
into the others, pruned in every layer in which the pattern fits. Dense contestants are the same network in bfloat16: PyTorch's
operators in a CUDA graph, and ``torch.compile(mode="max-autotune")``. All are called with an input on the GPU and give a result of
their own; times are device time of several calls, in turn, medians.
"""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from statistics import median
from typing import Any

import torch
from gpu_contestants import DEVICE, DTYPE, capability, cut_on_device
from gpu_error import relative_error
from gpu_models import BATCH, SEQUENCE, WORDS, Bert, residual_network
from gpu_run import Run, say
from torch import nn
from torch.nn import functional

import zellige as zl
from zellige.bench.clock import Call
from zellige.bench.device_clock import device_lap
from zellige.bench.rivals import cuda_compile, cuda_eager
from zellige.cuda.kernels.config import Config
from zellige.cuda.network.prices import worth_timing
from zellige.cuda.operators import features
from zellige.cuda.operators.product import multiply

PRUNINGS = {f"{pattern} {sparsity:.0%}": (pattern, sparsity)
            for pattern in ("block:128x64", "tile-rows:128", "tile:128") for sparsity in (0.5, 0.75)}
PRUNINGS |= {"tvw:128x64:2:4 75%": ("tvw:128x64:2:4", 0.75)}
"""Tiles of 128 rows: with columns in runs of 64, one by one, and one by one after whole rows; and with runs that are 2:4 inside."""

IN_BLOCKS = {name: pruning for name, pruning in PRUNINGS.items() if "128x64" in name}

SHOWN = ("block:128x64 50%", "tile-rows:128 75%", "tile:128 75%", "tvw:128x64:2:4 75%")
"""Those of which small networks are checked."""

CONVOLUTION_PRUNINGS = {f"{pattern} {sparsity:.0%}": (pattern, sparsity)
                        for pattern, sparsity in (("block:128x64", 0.5), ("block:128x64:per-tap", 0.75), ("block:128x8", 0.75))}
"""Blocks of input channels, with all their taps or one: as wide as a step, and the least that channels-last loads fast."""

ROUNDS = 9
NEEDS = {"max-autotune": 45, "ours dense": 25}
"""Seconds that must be left for a contestant to start; 15 for others."""

TOLERANCE = 3e-2
"""Of a network's answers in bfloat16 against float32: each of dozens of layers rounds to 8 bits."""


def tile_wise(model: nn.Module, pattern: str, sparsity: float) -> nn.Module:
    """A copy of which every linear layer and convolution is pruned in tiles, but those that the pattern leaves alone."""
    pruned = copy.deepcopy(model)
    if sparsity:
        zl.prune(pruned, pattern, sparsity)
    return pruned.eval()


# -------------------------------------------------------------------------------------------------------- correctness


def correctness(run: Run) -> object:
    """Small networks and kernels against float32 on the GPU; the engine's two ways to take an input; memory that runs out."""
    torch.manual_seed(0)
    found: dict[str, Any] = {}
    small = Bert(2, 256, 4, 512, 100)
    text = torch.randint(100, (4, 48))
    residual, maps = residual_network(), torch.randn(4, 3, 96, 96)
    cases: dict[str, tuple[nn.Module, torch.Tensor]] = {
        **{f"resnet-18, {name}": (tile_wise(residual, *pruning), torch.randn(16, 3, 224, 224))
           for name, pruning in CONVOLUTION_PRUNINGS.items()},
        "bert of 2 layers": (tile_wise(small, "", 0), text),
        **{f"bert of 2 layers, {name}": (tile_wise(small, *PRUNINGS[name]), text) for name in SHOWN},
        "resnet-18": (residual.eval(), maps)}
    for name, check in {"kernels": partial(kernels, run), "memory": partial(out_of_memory, small, text),
                        **{name: partial(network_error, *case) for name, case in cases.items()}}.items():
        if run.left < 5:
            say(f"   {name}: left out")
            continue
        begin = time.monotonic()
        try:
            found[name] = check()
        except Exception as error:
            found[name] = {"error": f"{type(error).__name__}: {str(error)[:600]}"}
        say(f"   {name}: {found[name]} ({time.monotonic() - begin:.1f} s)")
    return found


def network_error(model: nn.Module, x: torch.Tensor) -> dict[str, Any]:
    engine = zl.compile(model, (x,), target="cuda")
    reference = in_float32(model, x)
    far, near = engine(x), engine(x.to(DEVICE))
    twice = engine(x.to(DEVICE))
    assert far.device.type == "cpu" and far.dtype == torch.float32 and near.dtype == DTYPE and torch.equal(near, twice)
    error = relative_error(near, reference)
    return {"error": error, "right": error < TOLERANCE and relative_error(far.to(DEVICE), reference) < TOLERANCE,
            "form": engine.form, "paths": dict(Counter(layer.path for layer in engine.layers))}


def in_float32(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    with torch.no_grad():
        return copy.deepcopy(model).to(DEVICE)(x.to(DEVICE))


NORMS = ((1000, 768), (130, 1024), (8192, 768), (192, 256), (77, 4096))
"""Tokens and features."""

ATTENTIONS = ((3, 100, 4, 64), (64, 128, 12, 64), (4, 48, 4, 64), (2, 300, 2, 128), (2, 17, 3, 32))
"""Batch, sequence, heads, and features of a head."""


def kernels(run: Run) -> dict[str, float]:
    """Largest relative errors of the kernels for features × tokens, over shapes that fit no block too."""
    orders = [(x_features, y_features) for x_features in (False, True) for y_features in (False, True)]
    jobs = [*((norm_error, (*shape, *order)) for shape in NORMS for order in orders),
            *((attention_error, (*shape, config)) for shape in ATTENTIONS for config in features.attention_configs(shape[1]))]
    found: dict[str, float] = {}
    for (check, shape), error, reason in run.many(kernel_error, jobs, 0.3 * run.left):
        if reason or not error < TOLERANCE:
            say(f"   WRONG {check.__name__} {shape}: {error} {reason}")
        found[check.__name__] = max(found.get(check.__name__, 0.0), float("inf") if reason else error)
    return found


def kernel_error(job: tuple[Callable[..., float], tuple[Any, ...]]) -> float:
    return job[0](*job[1])


def norm_error(tokens: int, width: int, x_features: bool, y_features: bool) -> float:
    x = torch.randn(tokens, width, device=DEVICE, dtype=DTYPE)
    weight, bias = torch.randn(2, width, device=DEVICE, dtype=DTYPE)
    reference = functional.layer_norm(x.float(), (width,), weight.float(), bias.float())
    assert torch.equal(features.transposed(x), x.T)
    y = features.layer_norm(x.T.contiguous() if x_features else x, weight, bias, 1e-5, x_features, y_features)
    return relative_error(y.T if y_features else y, reference)


def attention_error(batch: int, sequence: int, heads: int, wide: int, config: Config) -> float:
    x = torch.randn(3 * heads * wide, batch * sequence, device=DEVICE, dtype=DTYPE)
    q, k, v = x.float().reshape(3, heads, wide, batch, sequence).permute(0, 3, 1, 4, 2)
    reference = functional.scaled_dot_product_attention(q, k, v).permute(1, 3, 0, 2).reshape(heads * wide, batch * sequence)
    return relative_error(features.attention(x, heads, sequence, wide**-0.5, config), reference)


def out_of_memory(model: nn.Module, text: torch.Tensor) -> str:
    """A compilation that finds too little memory says so, and the next one goes through."""
    large = nn.Linear(8192, 8192).eval()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-4)
    try:
        zl.compile(large, (torch.randn(16, 8192),), target="cuda")
        said = "NOT refused"
    except zl.ZelligeError as error:
        said = f"refused: {error}"
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    return f"{said}; afterwards {network_error(model.eval(), text)['right']}"


# -------------------------------------------------------------------------------------------------------------- speed


def compile_ahead(run: Run) -> object:
    """Compile the products that will be timed, many at a time, into Triton's cache on disk."""
    configs = worth_timing(768, BATCH * SEQUENCE, capability())
    wanted = [(config, y_features, activation, residual) for config in configs for y_features in (True, False)
              for activation, residual in (("none", False), ("none", True), ("gelu", False))]
    failed = [f"{job}: {reason}" for job, _, reason in run.many(compile_one, wanted, run.left) if reason]
    for reason in failed[:8]:
        say(f"   {reason}")
    return {"configurations": len(wanted), "failed": failed}


def compile_one(wanted: tuple[Config, bool, str, bool]) -> None:
    """Run a configuration once with parts and once without, features × tokens in: then its code is in the cache."""
    config, y_features, activation, with_residual = wanted
    for columns in (768, 64):
        cut = cut_on_device(torch.ones(128, columns), 128, 1, 64)
        x, bias = torch.ones(columns, 8192, device=DEVICE, dtype=DTYPE), torch.ones(128, device=DEVICE, dtype=DTYPE)
        residual = torch.ones((128, 8192) if y_features else (8192, 128), device=DEVICE, dtype=DTYPE) if with_residual else None
        multiply(cut, x, bias, residual, activation, True, y_features, config)
    torch.cuda.synchronize()


def bert(run: Run) -> object:
    torch.manual_seed(0)
    return raced(run, "bert-base", Bert().eval(), torch.randint(WORDS, (BATCH, SEQUENCE)), PRUNINGS)


def vgg(run: Run) -> object:
    return raced(run, "vgg-16", *images("vgg16_bn"), IN_BLOCKS)


def resnet(run: Run) -> object:
    return raced(run, "resnet-50", *images("resnet50"), IN_BLOCKS)


def images(name: str) -> tuple[nn.Module, torch.Tensor]:
    """One of torchvision's networks, its weights drawn so that activations keep their size, and images for it."""
    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return model, torch.randn(BATCH, 3, 224, 224)


def raced(run: Run, key: str, model: nn.Module, example: torch.Tensor, prunings: Mapping[str, tuple[str, float]]) -> object:
    """A network: ours at each sparsity, and the dense contestants; in turn."""
    facts: dict[str, Any] = {"shape": list(example.shape)}
    calls: dict[str, Call] = {}
    pruned = {f"ours {name}": partial(ours, model, example, *pruning, facts) for name, pruning in prunings.items()}
    contestants: dict[str, Callable[[], Call]] = {
        "eager": lambda: cuda_eager.build(model, (example,), DTYPE).call,
        **{name: made for name, made in pruned.items() if "128x64" in name},
        "max-autotune": lambda: cuda_compile.build(model, (example,), DTYPE).call, **pruned,
        "ours dense": partial(ours, model, example, "", 0.0, facts)}
    for name, prepare in contestants.items():
        if name in calls or run.left < NEEDS.get(name, 15):
            if name not in calls:
                say(f"   {name}: left out, {run.left:.0f} s are left")
            continue
        begin = time.monotonic()
        try:
            calls[name] = prepare()
            calls[name]()
        except Exception as error:
            facts.setdefault("failed", {})[name] = f"{type(error).__name__}: {str(error)[:600]}"
            calls.pop(name, None)
            say(f"   {name} FAILED: {facts['failed'][name]}")
            continue
        say(f"   {name}: ready after {time.monotonic() - begin:.1f} s")
        facts["seconds"] = {one: median(laps) for one, laps in in_turn(calls).items()}
        say("   " + "  ".join(f"{one} {1e3 * seconds:.3f} ms" for one, seconds in facts["seconds"].items()))
        run.facts[key] = facts
        run.write()
    laps = in_turn(calls, ROUNDS)
    dense = [laps[name] for name in ("eager", "max-autotune") if name in laps]
    facts["laps"] = laps
    facts["speedup"] = {name: median(min(others) / mine for *others, mine in zip(*dense, times, strict=True))
                        for name, times in laps.items() if name.startswith("ours") and dense}
    for name, speedup in facts["speedup"].items():
        say(f"   {name}: {speedup:.2f}× over the best dense of {len(dense)}")
    return facts


def in_turn(calls: dict[str, Call], rounds: int = 5) -> dict[str, list[float]]:
    """Seconds of one call, round by round, by the clock of ``zellige bench``; the first round is left out."""
    laps: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            laps[name].append(1e-3 * device_lap(call))
    return {name: times[1:] for name, times in laps.items()}


def ours(model: nn.Module, text: torch.Tensor, pattern: str, sparsity: float, facts: dict[str, Any]) -> Call:
    pruned = tile_wise(model, pattern, sparsity)
    begin = time.monotonic()
    engine = zl.compile(pruned, (text,), target="cuda")
    say(f"   compiled in {time.monotonic() - begin:.1f} s: {engine.form}")
    error = relative_error(engine(text.to(DEVICE)), in_float32(pruned, text))
    say(f"   relative error {error:.2e}{'' if error < TOLERANCE else ' WRONG'}")
    for layer in engine.layers[:9]:
        say(f"      {layer.name[-60:]:60} {layer.density:4.0%} {layer.path:32} {layer.reason}")
    say(f"      {dict(Counter(layer.path for layer in engine.layers))}")
    say(f"      sum of the layers as timed {1e3 * sum(layer.seconds for layer in engine.layers):.3f} ms")
    name = f"{pattern} {sparsity:.0%}".strip()
    facts[f"layers {name}"] = [asdict(layer) for layer in engine.layers]
    facts[f"error {name}"], facts[f"form {name}"] = error, engine.form
    on_gpu = text.to(DEVICE)
    return lambda: engine(on_gpu)
