"""Permutations of a weight's rows and columns that bring small weights together, so that a pattern keeps more of it.

The aim is that of TETRIS (Ji et al., NeurIPS 2018); ``methods`` has its search and a better one. A weight is looked at by itself
here: to permute it in a network, what makes its inputs and what reads its outputs must be permuted alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from zellige.errors import PruneError
from zellige.patterns import Block, Pattern, TileWise, WeightShape, parse_pattern
from zellige.patterns.sums import SLAB, row_sums, tree_sum
from zellige.prune.arguments import check_progress, check_seed, named
from zellige.prune.clustering.grid import Cut, Grid, Orders
from zellige.prune.clustering.methods import METHODS
from zellige.prune.clustering.progress import Progress, silent
from zellige.prune.on_cpu import on_cpu

CLUSTERABLE = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.int16, torch.int32, torch.int64,
               torch.uint8)


@dataclass(frozen=True, eq=False)
class Clustering:
    """Orders of rows and columns: ``weight[rows][:, columns]`` is the clustered weight."""

    rows: np.ndarray
    """Row numbers, int64: a permutation."""
    columns: np.ndarray
    """Column numbers, int64: a permutation."""
    kept: float
    """Share of the clustered weight's L1 mass that the pattern's own mask keeps."""
    kept_before: float
    """The same for the weight as it is."""


def cluster(
    weight: torch.Tensor,
    pattern: Pattern | str,
    sparsity: float,
    method: str = "exchange",
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> Clustering:
    """Searches for an order of a weight's rows and columns in which the pattern keeps more of its L1 mass.

    The result depends on the arguments alone, not on threads, and never keeps less than the weight as it is. The weight is
    only read. Beside it, a search holds its magnitudes twice, as float32 and without taps that share a block, unless these are more
    than 2²⁷, and sums per line and block; tile-wise shares are measured on copies.

    Args:
        weight: rows × columns, of any size and further axes: a convolution's row is a filter, its column an input channel with
            all its taps. Of a grouped convolution, give the rows of one group.
        pattern: ``Block`` of any size, or ``TileWise(…, whole_rows=False)``, in which only the order of rows matters; or its text.
        sparsity: as for ``prune``.
        method: ``"exchange"``, exchanges of pairs by what the mask becomes; ``"annealing"``, the same twenty times as long;
            ``"tetris"``, Ji et al.; ``"mass"``, lines merely sorted by their L1 norm.
        seed: a whole number, for methods that draw.
        progress: is called with the steps done and the steps in all, or None where nobody knows.

    Raises:
        PruneError: an argument doesn't fit; the weight holds NaN or infinite values, or zeros alone; the pattern keeps the same
            in any order.
        CompileError: exchanges run as machine code, and this CPU has none of the instruction sets that it is made for.

    >>> odd, right = torch.arange(64) % 2, torch.arange(64) // 32
    >>> found = cluster(torch.where(odd[:, None] == right, 1.0, 0.1), "block:8x8", 0.5)
    >>> round(found.kept_before, 2), round(found.kept, 2)
    (0.5, 0.91)
    """
    pattern = _checked_pattern(pattern)
    exact, search = pattern.check(sparsity), named("clustering method", METHODS, method)
    check_seed(seed)
    check_progress(progress, "the steps done and the steps in all")
    with torch.no_grad(), on_cpu():
        checked, mass = _checked_weight(weight)
        grid = Grid(checked, mass / checked.numel(), _cut(pattern), exact)
        if not grid.axes:
            raise PruneError(f"{pattern} keeps the same of a {WeightShape(tuple(checked.shape))} weight in any order of rows and "
                             "columns; take a pattern with several lines in a block and several blocks in the weight.")
        unmoved = grid.identity()
        before = _kept_share(checked, unmoved, pattern, exact)
        found = search(grid, seed, progress) if grid.removed else unmoved
        after = _kept_share(checked, found, pattern, exact)
        if after < before:
            found, after = unmoved, before
    return Clustering(found[0].numpy(), found[1].numpy(), after, before)


def _checked_pattern(pattern: Pattern | str) -> Block | TileWise:
    """The pattern, if clustering knows what to do for it."""
    if isinstance(pattern, str):
        pattern = parse_pattern(pattern)
    if type(pattern) is Block or (type(pattern) is TileWise and not pattern.whole_rows):
        return pattern
    raise PruneError(f"Clustering is for Block(rows, columns) and TileWise(rows, whole_rows=False), or their text ('block:8x8', "
                     f"'tile-rows:128'); not for {pattern}.")


def _cut(pattern: Block | TileWise) -> Cut:
    return Cut(pattern.rows, pattern.columns if isinstance(pattern, Block) else 1, pattern.per_tap)


def _checked_weight(weight: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The weight on the CPU, and the sum of its magnitudes."""
    if not isinstance(weight, torch.Tensor) or weight.layout is not torch.strided or weight.dtype not in CLUSTERABLE:
        came = f"a {weight.layout} one of {weight.dtype}" if isinstance(weight, torch.Tensor) else type(weight).__name__
        raise PruneError(f"A weight to cluster is a plain tensor of floating-point or whole numbers, not {came}.")
    if weight.is_meta:
        raise PruneError("The weight is on the meta device, which holds no numbers; load the weights first.")
    WeightShape(tuple(weight.shape))
    weight = weight.detach().cpu()
    if not bool(torch.isfinite(torch.stack(torch.aminmax(weight))).all()):
        raise PruneError("The weight holds NaN or infinite values, and blocks can't be ranked by them; mend it first.")
    rows = max(1, SLAB * len(weight) // weight.numel())
    mass = float(tree_sum(torch.cat([row_sums(slab.double().abs()) for slab in weight.split(rows)]), 0))
    if mass == 0:
        raise PruneError("The weight is all zero, so nothing tells which blocks matter; give it weights first.")
    return weight, mass


def _kept_share(weight: torch.Tensor, orders: Orders, pattern: Block | TileWise, sparsity: Fraction) -> float:
    """Share of L1 mass that the pattern's own mask keeps of the weight in these orders."""
    rows, columns = orders
    if isinstance(pattern, TileWise):
        magnitudes = weight[rows][:, columns].abs()
        kept = row_sums(magnitudes * pattern.mask(magnitudes, float(sparsity)))
        return float(tree_sum(kept, 0) / tree_sum(row_sums(magnitudes), 0))
    step = pattern.rows * max(1, SLAB * len(weight) // (weight.numel() * pattern.rows))
    slabs = [pattern.block_scores(weight[some][:, columns].abs()) for some in rows.split(step)]
    scores = torch.cat(slabs)
    stay = pattern.staying([scores / pattern.block_sizes(WeightShape(tuple(weight.shape)))], sparsity)
    return float(tree_sum(scores[stay], 0) / tree_sum(scores, 0))
