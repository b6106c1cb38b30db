"""The study: patterns × sparsities × criteria × permutation on trained networks, by kept L1, one-shot accuracy and compiled speed.

    python benchmarks/patterns.py                       # a quarter of an hour on two cores
    python benchmarks/patterns.py --quick --result /tmp/patterns.json     # does it run? A minute or two
    python benchmarks/patterns.py --stages speed        # again, and only that: on a machine that does nothing else

Two networks are trained on the digits that come with scikit-learn (one random split, 360 images to test), from fixed seeds. Then
copies of them are pruned, without any training afterwards. Stages are apart, since only speeds need a quiet machine:

    train        the networks, kept in --networks
    accuracy     every trial's accuracy and kept L1
    seeds        8×8 blocks beside narrower ones again, on networks from other seeds (the residual one, which trains faster)
    sensitivity  what the loss does as each layer alone is pruned
    speed        the networks that l1 pruned, compiled, in turn with the dense one

The classifier is spared in all trials, for patterns that take whole outputs would take classes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from result_file import RESULTS, write_result

import zellige as zl
from zellige.demo import trained
from zellige.demo.network import DigitsNetwork
from zellige.demo.plain_network import PlainDigitsNetwork
from zellige.models.weights import load_weights, save_weights
from zellige.study.axes import AS_TRAINED, PERMUTED

NETWORKS: dict[str, type[torch.nn.Module]] = {"residual": DigitsNetwork, "plain": PlainDigitsNetwork}
SPARED = "classifier"
SENSITIVITY = ("block:8x8", "block:8x1")
TIMED = "l1"
SEEDED, SEEDS = "residual", (1, 2)


@dataclass(frozen=True)
class Part:
    """A full grid; the study is all parts, one after another. ``recovered`` says whether batch norms are measured again after
    pruning, as they should be; one part shows what becomes of networks otherwise."""

    patterns: tuple[str, ...]
    sparsities: tuple[float, ...] = (0.5, 0.75, 0.9)
    criteria: tuple[str, ...] = (TIMED,)
    orders: tuple[str, ...] = (AS_TRAINED,)
    recovered: bool = True


PATTERNS = (
    "unstructured", "block:8x8", "block:8x4", "block:8x1", "block:16x1", "block:1x8", "block:4x4", "block:32x32", "channel",
    "tile:64", "tile-rows:64", "tvw:64:2:4", "tew:64:0.01", "nm:2:4", "nm:4:8", "nm:1:4", "vnm:32:2:8",
)  # fmt: skip
FEW = ("unstructured", "block:8x8", "block:8x1", "tile-rows:64", "channel", "nm:2:4")
PARTS = {
    "patterns": Part(PATTERNS),
    "criteria": Part(FEW, criteria=("l2", "taylor", "fisher", "wanda")),
    "permuted": Part(("block:8x8", "block:8x1", "tile-rows:64"), orders=(PERMUTED,)),
    "as pruned": Part(FEW, recovered=False),
}
NARROW = Part(("block:8x8", "block:8x4", "block:8x1"), (0.5, 0.75))
QUICK = {
    "patterns": Part(("block:8x8", "block:8x1", "nm:2:4"), (0.5, 0.75)),
    "criteria": Part(("block:8x8",), (0.5,), ("taylor",)),
    "permuted": Part(("block:8x8",), (0.5,), orders=(PERMUTED,)),
    "as pruned": Part(("block:8x8",), (0.5,), recovered=False),
}


@dataclass(frozen=True)
class Setting:
    """How this run goes."""

    parts: dict[str, Part]
    schedule: trained.Schedule
    networks: Path
    threads: int
    rounds: int
    seed: int


def train(name: str, facts: dict[str, Any], setting: Setting) -> None:
    """Train a network from its seed, and keep its weights."""
    model, _ = trained.trained(NETWORKS[name], setting.seed, setting.schedule)
    setting.networks.mkdir(parents=True, exist_ok=True)
    save_weights(model, setting.networks / f"{name}.safetensors")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    facts.update(training={**asdict(setting.schedule), "seed": setting.seed}, parameters=parameters)
    print(f"{name}: {parameters} parameters, accuracy {trained.evaluate(model):.1%}", flush=True)


def accuracy(name: str, facts: dict[str, Any], setting: Setting) -> None:
    """The trials of every part, not compiled. Parts that aren't asked for stay as they were measured before."""
    model = network(name, setting)
    for title, part in setting.parts.items():
        facts.setdefault("parts", {})[title] = answers(f"{name}, {title}", model, part, setting).as_dict()


def seeds(name: str, facts: dict[str, Any], setting: Setting) -> None:
    """Networks that nothing but the seed tells apart from the first one."""
    if name == SEEDED:
        facts["seeds"] = {}
        for seed in SEEDS:
            model, _ = trained.trained(NETWORKS[name], seed, setting.schedule)
            facts["seeds"][str(seed)] = answers(f"{name}, seed {seed}", model, NARROW, setting).as_dict()


def answers(title: str, model: torch.nn.Module, part: Part, setting: Setting) -> zl.Study:
    """A part of the study, not compiled."""
    found = zl.compare(
        model, part.patterns, part.sparsities, example(), criteria=part.criteria, orders=part.orders, timed=(),
        evaluate=trained.evaluate, recover=trained.retake if part.recovered else None, data=trained.batches(), loss=trained.loss,
        ignore=SPARED, threads=setting.threads,
    )  # fmt: skip
    print(f"{title}\n{found}\n", flush=True)
    return found


def sensitivity(name: str, facts: dict[str, Any], setting: Setting) -> None:
    """The curves of every layer, in several patterns."""
    model = network(name, setting)
    found = [zl.sensitivity(model, pattern, example(), data=trained.batches(), loss=trained.loss, ignore=SPARED)
             for pattern in SENSITIVITY]  # fmt: skip
    print("\n".join(map(str, found)), flush=True)
    facts["sensitivity"] = [one.as_dict() for one in found]


def speed(name: str, facts: dict[str, Any], setting: Setting) -> None:
    """The timed criterion's trials, compiled, all of them in the same rounds."""
    part = setting.parts["patterns"]
    timed = zl.compare(network(name, setting), part.patterns, part.sparsities, example(), ignore=SPARED, threads=setting.threads,
                       rounds=setting.rounds)  # fmt: skip
    print(timed, flush=True)
    facts["speed"] = timed.as_dict()


STAGES: dict[str, Callable[[str, dict[str, Any], Setting], None]] = {
    "train": train, "accuracy": accuracy, "seeds": seeds, "sensitivity": sensitivity, "speed": speed,
}  # fmt: skip


def network(name: str, setting: Setting) -> torch.nn.Module:
    """The network that was trained."""
    model = NETWORKS[name]().eval()
    load_weights(model, setting.networks / f"{name}.safetensors")
    return model


def example() -> tuple[torch.Tensor, ...]:
    """One image."""
    return (trained.digits()[1].images[:1],)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare patterns on trained networks.")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(NETWORKS), metavar="NETWORKS")
    parser.add_argument("--stages", type=lambda text: text.split(","), default=list(STAGES), metavar="NAMES")
    parser.add_argument("--parts", type=lambda text: text.split(","), metavar="NAMES", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="few trials on networks that hardly learned: does it run?")
    parser.add_argument("--threads", type=int, default=1, help="of compiled networks")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--networks", type=Path, default=Path("build", "patterns"), help="directory for trained weights")
    parser.add_argument("--result", type=Path, default=RESULTS / "patterns.json")
    asked = parser.parse_args(arguments)
    parts = QUICK if asked.quick else PARTS
    known = {"networks": (asked.only, NETWORKS), "stages": (asked.stages, STAGES), "parts": (asked.parts or (), parts)}
    for what, (names, table) in known.items():
        if unknown := set(names) - set(table):
            parser.error(f"unknown {what}: {', '.join(sorted(unknown))}; known are {', '.join(table)}")
    schedule = replace(trained.TRAINING, epochs=1) if asked.quick else trained.TRAINING
    setting = Setting({name: parts[name] for name in asked.parts or parts}, schedule, asked.networks, asked.threads, asked.rounds,
                      asked.seed)  # fmt: skip
    results: dict[str, Any] = json.loads(asked.result.read_text()) if asked.result.exists() else {"networks": {}}
    for stage in asked.stages:
        for name in asked.only:
            started = time.perf_counter()
            STAGES[stage](name, results["networks"].setdefault(name, {}), setting)
            print(f"{stage} of {name} took {(time.perf_counter() - started) / 60:.1f} min", flush=True)
            write_result(asked.result, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
