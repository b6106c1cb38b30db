"""The passes on torchvision's networks: the same results in float64, everything folded and fused that can be."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from small_networks import assert_same_results, ops

from zellige.graph.from_torch import from_torch
from zellige.graph.ir import Graph
from zellige.passes.pipeline import optimize
from zellige.passes.sparsity import find_sparsity


def traced(name: str, size: int, change=lambda model: None) -> Graph:
    """The network with random weights and uneven statistics, as a float64 graph."""
    torch.manual_seed(0)
    options = {"init_weights": True, "aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    model = torchvision.models.get_model(name, weights=None, **options).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    change(model)
    return in_float64(from_torch(model, (torch.randn(1, 3, size, size),)))


def in_float64(graph: Graph) -> Graph:
    def wide(kind):
        return replace(kind, dtype="f64")

    return replace(graph, inputs={name: wide(kind) for name, kind in graph.inputs.items()},
                   nodes={node.name: replace(node, type=wide(node.type)) for node in graph},
                   constants={name: array.astype(np.float64) for name, array in graph.constants.items()})


# What is left of each network, operator by operator.
LEFT = {
    ("resnet18", 64): {"conv2d": 20, "max_pool2d": 1, "mean": 1, "linear": 1},
    ("mobilenet_v3_small", 64): {"conv2d": 52, "mean": 10, "multiply": 9, "linear": 2},
    ("shufflenet_v2_x0_5", 64): {"conv2d": 56, "max_pool2d": 1, "concat": 16, "channel_shuffle": 16, "slice": 26,
                                 "mean": 1, "linear": 1},
}
OTHERS = ["alexnet", "vgg11", "vgg11_bn", "resnet50", "wide_resnet50_2", "resnext50_32x4d", "inception_v3", "googlenet",
          "densenet121", "squeezenet1_0", "mobilenet_v2", "mobilenet_v3_large", "mnasnet0_5", "mnasnet1_3",
          "shufflenet_v2_x2_0", "efficientnet_b0", "efficientnet_v2_s", "regnet_x_400mf", "regnet_y_400mf",
          "convnext_tiny"]


@pytest.mark.parametrize(("name", "size"), LEFT)
def test_families_come_out_in_their_plain_form(name, size):
    before = traced(name, size)
    after = optimize(before)
    assert Counter(ops(after)) == LEFT[name, size]
    assert_same_results(before, after)


@pytest.mark.full
@pytest.mark.parametrize("name", OTHERS)
def test_all_families_compute_the_same_after_the_passes(name):
    before = traced(name, 96)
    after = optimize(before)
    assert "batch_norm" not in ops(after)
    if name != "convnext_tiny":            # its layer norms are composed of operations that have no host
        assert not {"activation", "add", "prelu", "subtract", "transpose"} & set(ops(after))
    if name != "densenet121":              # norms of concatenated values stand before convolutions that pad
        assert "scale_shift" not in ops(after) or name == "convnext_tiny"
    assert_same_results(before, after)


def test_every_convolution_of_a_resnet_ends_in_its_relu_and_pruned_blocks_are_found():
    mask = torch.from_numpy(np.kron(np.random.default_rng(0).random((16, 8)) < 0.5, np.ones((8, 8))))[..., None, None]

    def prune(model):
        model.layer2[0].conv1.weight.data *= mask

    after = optimize(traced("resnet18", 32, prune))
    residuals = 0
    for node in after:
        steps = [str(step).split()[0] for step in node.epilogue]
        if node.op == "conv2d" and steps != ["relu"]:
            # a block's last convolution, or the branch beside it, adds the other and ends in the block's relu
            residuals += steps == ["add", "relu"]
            assert steps in (["add", "relu"], [])
    assert residuals == 8
    assert sum(node.op == "conv2d" and not node.epilogue for node in after) == 3
    found = find_sparsity(after)
    pruned = [name for name, layer in found.items() if layer.pattern != "dense"]
    assert len(found) == 21 and len(pruned) == 1
    layer = found[pruned[0]]
    assert layer.pattern == "8x8 blocks"
    assert layer.blocks == layer.elements == pytest.approx(float(mask.mean()))
