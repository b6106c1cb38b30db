"""Which blocks go, against a block-by-block oracle over generated networks."""

from itertools import product

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from zellige.patterns import Block, WeightShape
from zellige.patterns.shares import floor_share
from zellige.prune import prune

Region = tuple[slice, ...]


def regions(pattern: Block, shape: WeightShape) -> list[Region]:
    """The index of each block in a weight, in order."""
    found = []
    high, wide = shape.rows_per_group, shape.columns
    taps = list(product(*(range(size) for size in shape.dims[2:]))) if pattern.per_tap else [()]
    for group, top, left, tap in product(
        range(shape.groups), range(0, high, pattern.rows), range(0, wide, pattern.columns), taps
    ):
        rows = slice(group * high + top, group * high + min(top + pattern.rows, high))
        found.append((rows, slice(left, left + pattern.columns), *(slice(at, at + 1) for at in tap)))
    return found


def block_score(block: torch.Tensor, score: str) -> int:
    return sum(int(abs(value)) if score == "l1" else int(value) ** 2 for value in block.flatten().tolist())


def zeroed(weights: list[torch.Tensor], goners: list[tuple[int, Region]]) -> list[torch.Tensor]:
    result = [weight.clone() for weight in weights]
    for layer, region in goners:
        result[layer][region] = 0
    return result


def expected_per_layer(
    weights: list[torch.Tensor], shapes: list[WeightShape], pattern: Block, sparsity: float, score: str
) -> list[torch.Tensor]:
    goners = []
    for layer, (weight, shape) in enumerate(zip(weights, shapes, strict=True)):
        blocks = regions(pattern, shape)
        means = [block_score(weight[region], score) / weight[region].numel() for region in blocks]
        ranked = sorted(range(len(blocks)), key=lambda at: (means[at], at))
        goners += [(layer, blocks[at]) for at in ranked[: floor_share(sparsity, len(blocks))]]
    return zeroed(weights, goners)


def expected_globally(
    weights: list[torch.Tensor], shapes: list[WeightShape], pattern: Block, sparsity: float, score: str
) -> list[torch.Tensor]:
    ranked = []
    for layer, (weight, shape) in enumerate(zip(weights, shapes, strict=True)):
        for position, region in enumerate(regions(pattern, shape)):
            mean = block_score(weight[region], score) / weight[region].numel()
            ranked.append((mean, layer, position, region))
    ranked.sort(key=lambda entry: entry[:3])
    best = [max(entry[:3] for entry in ranked if entry[1] == layer) for layer in range(len(weights))]
    free = [(entry[1], entry[3]) for entry in ranked if entry[:3] not in best]
    return zeroed(weights, free[: floor_share(sparsity, len(ranked))])


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Sequential, Block]:
    """A few layers of several kinds (pruned, never run), with small whole numbers as weights, so that ties abound."""
    pattern = Block(draw(st.sampled_from([2, 3, 4, 8])), draw(st.sampled_from([1, 2, 4, 8])), draw(st.booleans()))
    largest = draw(st.sampled_from([1, 3, 20]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9999)))
    layers = []
    for _ in range(draw(st.integers(1, 3))):
        groups = draw(st.sampled_from([1, 1, 2]))
        rows, columns = draw(st.integers(8, 24)) * groups, draw(st.integers(8, 24)) * groups
        layers.append(draw(st.sampled_from([
            nn.Linear(columns, rows),
            nn.Conv2d(columns, rows, draw(st.sampled_from([1, 3, (1, 2)])), groups=groups),
            nn.Conv1d(columns, rows, 3, groups=groups),
        ])))
        with torch.no_grad():
            weight = layers[-1].weight
            weight.copy_(torch.randint(-largest, largest + 1, weight.shape, generator=generator))
    return nn.Sequential(*layers), pattern


SPARSITIES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7, 0.9])


@given(networks(), SPARSITIES, st.sampled_from(["l1", "l2"]), st.sampled_from(["layer", "global"]))
def test_exactly_the_lowest_blocks_go(
    case: tuple[nn.Sequential, Block], sparsity: float, score: str, scope: str
) -> None:
    model, pattern = case
    shapes = [WeightShape(tuple(layer.weight.shape), getattr(layer, "groups", 1)) for layer in model]
    before = [layer.weight.detach().clone() for layer in model]
    biases = [layer.bias.detach().clone() for layer in model]
    names = [name for name, _ in model.named_children()]  # named, so that none stays dense for being small
    blocks = sum(len(regions(pattern, shape)) for shape in shapes)
    if scope == "global" and floor_share(sparsity, blocks) > blocks - len(names):
        return  # refused: see test_prune_allocation.py
    expected = (expected_per_layer if scope == "layer" else expected_globally)(before, shapes, pattern, sparsity, score)

    report = prune(model, pattern, sparsity, score=score, scope=scope, targets=names)

    for layer, bias, weight in zip(model, biases, expected, strict=True):
        assert torch.equal(layer.weight, weight)
        assert torch.equal(layer.bias, bias)
    assert [row.name for row in report.pruned] == names
    for row, weight, old in zip(report.pruned, expected, before, strict=True):
        assert row.amounts.zeros == int((weight == 0).sum())
        assert row.amounts.weights == weight.numel()
        assert row.amounts.l1 == float(old.abs().sum())
        assert row.amounts.l1_left == float(weight.abs().sum())


@given(networks(), SPARSITIES)
def test_the_report_counts_blocks_exactly(case: tuple[nn.Sequential, Block], sparsity: float) -> None:
    model, pattern = case
    names = [name for name, _ in model.named_children()]
    report = prune(model, pattern, sparsity, targets=names)
    for row, layer in zip(report.pruned, model, strict=True):
        shape = WeightShape(tuple(layer.weight.shape), getattr(layer, "groups", 1))
        assert row.amounts.blocks == len(regions(pattern, shape))
        assert row.amounts.removed == floor_share(sparsity, row.amounts.blocks)


def test_pruning_again_goes_on_from_the_zeros_there_are() -> None:
    torch.manual_seed(0)
    model = nn.Linear(64, 64)
    prune(model, "block:8x8", 0.5)
    halfway = model.weight == 0
    prune(model, "block:8x8", 0.5)
    assert torch.equal(model.weight == 0, halfway)
    prune(model, "block:8x8", 0.75)
    assert bool((model.weight == 0)[halfway].all())


def test_low_precision_weights_are_ranked_as_their_exact_values() -> None:
    torch.manual_seed(0)
    weight = torch.randn(64, 64).bfloat16()
    masks = []
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        model = nn.Linear(64, 64, dtype=dtype)
        with torch.no_grad():
            model.weight.copy_(weight)
        prune(model, Block(8, 8), 0.5, score="l2")
        masks.append(model.weight != 0)
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[1], masks[2])


def test_memory_format_and_default_device_change_nothing() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(16, 32, 3), nn.Conv2d(32, 20, 3))
    other = nn.Sequential(nn.Conv2d(16, 32, 3), nn.Conv2d(32, 20, 3)).to(memory_format=torch.channels_last)
    other.load_state_dict(plain.state_dict())
    prune(plain, Block(8, 8), 0.5, scope="global")
    with torch.device("meta"):
        prune(other, Block(8, 8), 0.5, scope="global")
    for one, two in zip(plain, other, strict=True):
        assert torch.equal(one.weight, two.weight)
        assert two.weight.is_contiguous(memory_format=torch.channels_last)
