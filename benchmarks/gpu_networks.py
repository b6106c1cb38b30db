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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from gpu_contestants import DEVICE, DTYPE
from gpu_error import relative_error
from gpu_models import BATCH, SEQUENCE, WORDS, Bert, residual_network
from gpu_record import say
from gpu_run import Run
from torch import nn
from torch.nn import functional

import zellige as zl
from zellige.bench.clock import Call
from zellige.bench.device_clock import device_lap
from zellige.bench.rivals import cuda_compile, cuda_eager
from zellige.cuda.kernels.config import Config
from zellige.cuda.operators import features

PRUNINGS = {f"{pattern} {sparsity:.0%}": (pattern, sparsity)
            for pattern in ("block:128x64", "tile-rows:128", "tile:128") for sparsity in (0.5, 0.75)}
PRUNINGS |= {f"{pattern} 75%": (pattern, 0.75) for pattern in ("tvw:128x64:2:4", "tvw:128:2:4")}
"""Tiles of 128 rows: with columns in runs of 64, one by one, and one by one after whole rows; and with runs, or single columns,
that are 2:4 inside."""

IN_BLOCKS = {name: pruning for name, pruning in PRUNINGS.items() if "128x64" in name}

SHOWN = ("block:128x64 50%", "tile-rows:128 75%", "tile:128 75%", "tvw:128x64:2:4 75%", "tvw:128:2:4 75%")
"""Those of which small networks are checked."""

CONVOLUTION_PRUNINGS = {f"{pattern} {sparsity:.0%}": (pattern, sparsity)
                        for pattern, sparsity in (("block:128x64", 0.5), ("block:128x64:per-tap", 0.75), ("block:128x8", 0.75))}
"""Blocks of input channels, with all their taps or one: as wide as a step, and the least that channels-last loads fast."""

FEW_ROUNDS = 2
"""After each contestant, lest nothing is known if a later one ends the process."""

DENSE = ("eager", "max-autotune")
LEAST, SOON = 12.0, 60.0
"""Seconds that must be left for a contestant of ours to start; what is tuned in fewer than so many does not come last."""

PATIENCE = 90.0
"""Seconds that the check of a small network may take, while others have the cores too."""

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
    """Small networks against float32 on the GPU; the engine's two ways to take an input; memory that runs out."""
    found: dict[str, Any] = {}
    for name, result, reason in run.each(small_network, list(small_networks()), PATIENCE):
        found[name] = {"error": reason} if reason else result
        say(f"   {name}: {found[name]}")
    return found


def small_networks() -> dict[str, Callable[[], Any]]:
    """Name → what is found of it. Networks are drawn when they are called for, alike in every process."""
    text, images = torch.randint(100, (4, 48), generator=seeded()), torch.randn(16, 3, 224, 224, generator=seeded())
    bert, residual = partial(drawn, Bert, 2, 256, 4, 512, 100), partial(drawn, residual_network)
    return {**{f"resnet-18, {name}": partial(pruned_error, residual, pruning, images)
               for name, pruning in CONVOLUTION_PRUNINGS.items()},
            **{f"bert of 2 layers, {name}": partial(pruned_error, bert, PRUNINGS[name], text) for name in SHOWN},
            "memory": lambda: out_of_memory(bert(), text), "bert of 2 layers": partial(pruned_error, bert, ("", 0.0), text),
            "resnet-18": partial(pruned_error, residual, ("", 0.0), images[:4, :, :96, :96])}


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def drawn(network: Callable[..., nn.Module], *sizes: int) -> nn.Module:
    torch.manual_seed(0)
    return network(*sizes)


def small_network(name: str) -> Any:
    return small_networks()[name]()


def pruned_error(network: Callable[[], nn.Module], pruning: tuple[str, float], x: torch.Tensor) -> dict[str, Any]:
    return network_error(tile_wise(network(), *pruning), x)


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
    for (check, shape), error, reason in run.each(kernel_error, jobs, PATIENCE):
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


@dataclass(frozen=True)
class Network:
    """``make`` draws a network and an example; ``tuning``: seconds that PyTorch's compiler needs to try what it can."""

    make: Callable[[], tuple[nn.Module, torch.Tensor]]
    prunings: Mapping[str, tuple[str, float]]
    tuning: float


def of_words() -> tuple[nn.Module, torch.Tensor]:
    return drawn(Bert).eval(), torch.randint(WORDS, (BATCH, SEQUENCE), generator=seeded())


def of_images(name: str) -> tuple[nn.Module, torch.Tensor]:
    """One of torchvision's networks, its weights drawn so that activations keep their size, and images for it."""
    import torchvision

    model = drawn(partial(torchvision.models.get_model, name, weights=None)).eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return model, torch.randn(BATCH, 3, 224, 224, generator=seeded())


NETWORKS = {"bert-base": Network(of_words, PRUNINGS, 40.0), "vgg-16": Network(partial(of_images, "vgg16_bn"), IN_BLOCKS, 120.0),
            "resnet-50": Network(partial(of_images, "resnet50"), IN_BLOCKS, 150.0)}


def bert(run: Run) -> object:
    return raced(run, "bert-base")


def vgg(run: Run) -> object:
    return raced(run, "vgg-16")


def resnet(run: Run) -> object:
    return raced(run, "resnet-50")


def raced(run: Run, key: str) -> object:
    """A network: ours at each sparsity, and the dense contestants; in turn. What is found stays if a contestant ends it."""
    run.facts[key] = {}
    for _, _, reason in run.each(race, [(key, run.end)], run.left, partial(run.record.put, key)):
        if reason:
            say(f"   FAILED: {reason}")
            run.facts[key] |= {"ended": reason}
    for name, speedup in run.facts[key].get("speedup", {}).items():
        say(f"   {name}: {speedup:.2f}× over the best dense")
    return run.facts[key]


def race(job: tuple[str, float]) -> Iterator[dict[str, Any]]:
    """What is found, contestant after contestant, as far as one comes before the clock says so."""
    key, end = job
    model, example = NETWORKS[key].make()
    facts: dict[str, Any] = {"shape": list(example.shape)}
    calls: dict[str, Call] = {}
    for name, prepare in contestants(key, model, example, facts).items():
        left = end - time.monotonic()
        if left < (NETWORKS[key].tuning if name == "max-autotune" else LEAST):
            say(f"   {name}: left out, {left:.0f} s are left")
            continue
        begin = time.monotonic()
        try:
            calls[name] = prepare()
            calls[name]()
        except torch.AcceleratorError:
            raise
        except Exception as error:
            facts.setdefault("failed", {})[name] = f"{type(error).__name__}: {str(error)[:600]}"
            calls.pop(name, None)
            say(f"   {name} FAILED: {facts['failed'][name]}")
            continue
        say(f"   {name}: ready after {time.monotonic() - begin:.1f} s")
        yield facts | compared(in_turn(calls, FEW_ROUNDS))
    yield facts | compared(in_turn(calls))


def contestants(key: str, model: nn.Module, example: torch.Tensor, facts: dict[str, Any]) -> dict[str, Callable[[], Call]]:
    """What matters most first; where tuning takes minutes, it comes last."""
    pruned = {f"ours {name}": partial(ours, model, example, *pruning, facts) for name, pruning in NETWORKS[key].prunings.items()}
    tuned = {"max-autotune": lambda: cuda_compile.build(model, (example,), DTYPE).call}
    return {"eager": lambda: cuda_eager.build(model, (example,), DTYPE).call,
            **dict(list(pruned.items())[:2]), **(tuned if NETWORKS[key].tuning < SOON else {}),
            "ours dense": partial(ours, model, example, "", 0.0, facts), **pruned, **tuned}


def compared(laps: dict[str, list[float]]) -> dict[str, Any]:
    """Medians, and speedups over the fastest dense contestant of each round."""
    dense = [laps[name] for name in DENSE if name in laps]
    return {"seconds": {name: median(times) for name, times in laps.items()}, "laps": laps,
            "speedup": {name: median(min(others) / mine for *others, mine in zip(*dense, times, strict=True))
                        for name, times in laps.items() if name.startswith("ours") and dense}}


def in_turn(calls: dict[str, Call], rounds: int = 9) -> dict[str, list[float]]:
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
