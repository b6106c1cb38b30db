"""The choice of a way for a layer: all are timed against the dense one, which wins where nothing is gained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch

from zellige.cuda.kernels.config import Config, candidates
from zellige.cuda.layers.agreement import Agreement, Answer
from zellige.cuda.layers.choices import Choice, ChoiceCache
from zellige.cuda.layers.keys import machine, work_of
from zellige.cuda.layers.timing import Repeated, fastest
from zellige.cuda.operators.product import capability_of
from zellige.cuda.tiling.compressed_blocks import SHARE, compressible
from zellige.cuda.tiling.device_tiles import DTYPES
from zellige.cuda.tiling.outlook import Outlook, outlook
from zellige.cuda.tiling.paired_blocks import fetched
from zellige.cuda.tiling.tiles import Tiles
from zellige.errors import CompileError

DENSE, BLOCKS, TWO_FOUR, PAIRED = "dense", "blocks", "blocks 2:4", "paired blocks"
BY_BLOCKS = (TWO_FOUR, BLOCKS, PAIRED)
"""Ways of the kernel of blocks; 2:4 are those that are compressed, paired those of half as many rows."""

GROUPS = {"groups": 8, "columns": 1}
"""Way → the columns of a group; blocks have the whole step."""

CLEARLY_LESS = 0.9
"""Of the multiplications of a coarser way: a finer one, whose kernel is slower, is timed below that."""

ROTATED_BYTES = 160e6  # inputs that are timed in turn: more than the L2 caches of today hold
MOST_INPUTS = 64

Call = Callable[[torch.Tensor], torch.Tensor]
Product = Callable[[Config | None, torch.Tensor], torch.Tensor]
Contestant = tuple[str, Config | None]


def groups(step: int) -> dict[str, int]:
    """The same of all ways, the coarsest first."""
    return {**dict.fromkeys(BY_BLOCKS, step), **GROUPS}


def tile_of(way: str, tile: int) -> int:
    """Rows of the tiles that are cut for a way: of paired blocks half of those that they become."""
    return tile // 2 if way == PAIRED else tile


def cut_for(ways: Iterable[str], tile: int, step: int, cut: Callable[[int, int], Tiles]) -> dict[str, Tiles]:
    """The tiles of each way, by what cuts a weight into tiles of so many rows in groups of so many columns: once for ways that cut
    alike."""
    sizes = {way: (tile_of(way, tile), groups(step)[way]) for way in ways}
    made = {size: cut(*size) for size in dict.fromkeys(sizes.values())}
    return {way: made[size] for way, size in sizes.items()}


def promises(cuts: Mapping[str, Tiles]) -> dict[str, Outlook]:
    """What the tiles of each way promise; nothing of blocks that can't be compressed, nor of paired ones where whole ones have
    hardly more to do."""
    wanted: dict[str, Callable[[Tiles], bool]] = {TWO_FOUR: compressible,
                                                  PAIRED: lambda cut: cut.work < CLEARLY_LESS * cuts[BLOCKS].work}
    able = {way: cut for way, cut in cuts.items() if way not in wanted or wanted[way](cut)}
    return {way: replace(outlook(cut), work=cut.work * (SHARE if way == TWO_FOUR else 1.0)) for way, cut in able.items()}


def check_timeable(weight: torch.Tensor, dimensions: int) -> None:
    """``CompileError`` if a weight can't be timed."""
    if weight.device.type != "cuda" or weight.dtype not in DTYPES or weight.ndim != dimensions:
        raise CompileError(f"ways are timed for a weight of {dimensions} dimensions, bfloat16 or float16, on a GPU, not for "
                           f"{list(weight.shape)} of {weight.dtype} on {weight.device}; move and convert the model first")


def fastest_way(key: str, dense: Call, ways: Mapping[str, Callable[[], Product | None]],
                configs: Mapping[str, Sequence[Config | None]], example: torch.Tensor, cache: ChoiceCache | None,
                size: tuple[int, ...], untimed: str = "") -> Choice:
    """Time ``dense`` and each of ``ways`` in each of its ``configs``, or take what was chosen before under the same key.

    A way is prepared when it is to be timed, and left out if nothing comes of that; it fails if it does not answer as ``dense``
    does. ``example``: what an input looks like, and its ``size``; ``untimed``: why there are no ways, if there are none. Where
    anything failed the choice says so, and is not kept: the next race may end otherwise. ``CompileError`` if nothing ran,
    ``OutOfMemoryError`` if that was for memory alone.
    """
    cache = cache or ChoiceCache()
    known = cache.get(key)
    if known is not None and (known.way == DENSE or (known.way in ways and known.config in configs[known.way])):
        return replace(known, untimed=untimed, size=size)
    count = max(2, min(MOST_INPUTS, int(ROTATED_BYTES / (example.numel() * example.itemsize))))
    inputs = [torch.randn_like(example) for _ in range(count)]
    calls: dict[Contestant, Call] = {(DENSE, None): dense}
    for way, prepare in ways.items():
        product = prepare()
        if product is not None:
            calls |= {(way, config): partial(product, config) for config in configs[way]}
    contestants = {name: partial(repeated, call, inputs) for name, call in calls.items()}
    agreement = Agreement(lambda: Answer.of_product(dense(inputs[0]).detach()))
    times, failed = fastest(contestants, check=agreement.check)
    (best, chosen), seconds = best_of(times, failed, "the layer")
    baseline = times.get((DENSE, None))
    if baseline is None:  # it did not come through the heat
        baseline = fastest({(DENSE, None): contestants[DENSE, None]})[0].get((DENSE, None), seconds)
    choice = Choice(best, chosen, seconds, baseline, failures(failed), untimed, size)
    if not choice.failed:
        cache.put(key, choice)
    return choice


def best_of(times: Mapping[Contestant, float], failed: Mapping[Contestant, str], what: str) -> tuple[Contestant, float]:
    """Who was fastest, and its seconds. ``CompileError`` if nothing ran, ``OutOfMemoryError`` if that was for memory alone."""
    if not times and all(reason.startswith(torch.OutOfMemoryError.__name__) for reason in failed.values()):
        raise torch.OutOfMemoryError(next(iter(failed.values())))
    if not times:
        raise CompileError(f"{what} could not be run on the GPU in any way: " + "; ".join(failures(failed)))
    return next(iter(times.items()))


def failures(failed: Mapping[Contestant, str]) -> tuple[str, ...]:
    """A line for every contestant that failed.

    >>> failures({("groups", Config(128, 4, 3, 16)): "it fell", ("dense", None): "so did this"})
    ('groups 128x4w3s/16: it fell', 'dense: so did this')
    """
    return tuple(f"{way}: {reason}" if config is None else f"{way} {config}: {reason}" for (way, config), reason in failed.items())


def why_untimed(cuts: Iterable[Outlook]) -> str:
    """Why tiles were not timed, by the cut that leaves the least.

    >>> why_untimed([Outlook(128, 8, 64, False, 0.97), Outlook(128, 1, 64, True, 0.95)])
    'not timed: tiles of 128 clustered rows × groups of 1 columns take 95% of the multiplications: no gain expected'
    """
    best = min(cuts, key=lambda cut: cut.work, default=None)
    return "" if best is None else f"not timed: {best}"


def repeated(call: Call, inputs: list[torch.Tensor]) -> Repeated:
    return Repeated([partial(call, x) for x in inputs])


def configurations(device: torch.device, tile: int, step: int, tokens: int) -> list[Config]:
    return candidates(tile, step, tokens, capability_of(device))


def key_of(weight: torch.Tensor, tile: int, step: int, cuts: Mapping[str, Tiles], *about: object) -> str:
    """All that a choice depends on: the work of each way, and what paired blocks read, stand for the pattern of the zeros."""
    about += tuple((PAIRED, fetched(cut)) for way, cut in cuts.items() if way == PAIRED)
    parts = (*machine(weight.device), weight.dtype, list(weight.shape), *about, tile, step,
             sorted((way, work_of(cut)) for way, cut in cuts.items()))
    return " | ".join(map(str, parts))
