"""The families of networks that tests compile: torchvision's classifiers, and one or two of each of timm's CNN families."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

OTHERS = {
    "vgg11_bn": ["vgg11", "vgg16", "vgg19_bn"], "resnet18": ["resnet34", "resnet50", "resnet101"],
    "wide_resnet50_2": ["wide_resnet101_2"], "resnext50_32x4d": ["resnext101_64x4d"],
    "densenet121": ["densenet161", "densenet169", "densenet201"], "squeezenet1_1": ["squeezenet1_0"],
    "mobilenet_v3_small": ["mobilenet_v3_large"], "mnasnet0_5": ["mnasnet1_3"],
    "shufflenet_v2_x0_5": ["shufflenet_v2_x1_0", "shufflenet_v2_x2_0"],
    "efficientnet_b0": ["efficientnet_b2", "efficientnet_v2_s"], "regnet_x_400mf": ["regnet_x_1_6gf", "regnet_x_8gf"],
    "regnet_y_400mf": ["regnet_y_800mf", "regnet_y_3_2gf"],
}
FAMILIES = ["alexnet", "inception_v3", "googlenet", "mobilenet_v2", *OTHERS]
"""One network of every family of torchvision; ``OTHERS`` has more of those that have variants."""

CLASSIFIER_INPUTS = {"alexnet": 9216, **dict.fromkeys(("vgg11", "vgg11_bn", "vgg16", "vgg19_bn"), 25088)}
"""Networks whose classifier has a hundred million weights, and what goes into it."""

TIMM = [
    "resnet18", "resnet26t", "ecaresnet26t", "skresnet18", "legacy_seresnet18", "resnest14d", "resnetblur18", "resnetaa34d",
    "resnet50_gn", "resnetv2_18", "resnetv2_50", "res2net50_14w_8s", "dla34", "dla46x_c", "ese_vovnet19b_dw", "hrnet_w18_small",
    "ghostnet_100", "ghostnetv2_100", "mobilenetv2_050", "mobilenetv3_small_100", "mobilenetv4_conv_small", "mobileone_s0",
    "efficientnet_lite0", "efficientnet_b0_gn", "efficientnet_b0_g16_evos", "mixnet_s", "tf_efficientnetv2_b0", "tf_mixnet_s",
    "fbnetc_100", "fbnetv3_b", "tinynet_e", "lcnet_050", "hardcorenas_a", "spnasnet_100", "semnasnet_050", "regnetx_002",
    "regnety_002", "regnetz_b16", "regnetv_040", "repvgg_a0", "rexnet_100", "densenet121", "dpn48b", "inception_v4",
    "inception_resnet_v2", "legacy_xception", "xception41", "nfnet_l0", "nf_regnet_b0", "dm_nfnet_f0", "eca_nfnet_l0",
    "convnext_atto", "convnextv2_atto", "cspresnet50", "cspdarknet53", "cs3darknet_s", "darknet53", "selecsls42", "hgnet_tiny",
    "hgnetv2_b0", "tresnet_m", "nasnetalarge", "pnasnet5large", "gernet_s", "gcresnet33ts", "starnet_s1", "fasternet_t0",
    "inception_next_atto", "convmixer_768_32", "poolformer_s12", "repvit_m0_9", "repghostnet_050", "lcnetv2_small", "rdnet_tiny",
    "mambaout_femto", "focalnet_tiny_srf", "cspnext_tiny", "mobilevitv2_050"]
LEAST_SIDE = {"inception_v3": 75, "inception_v4": 75, "inception_resnet_v2": 75, "nasnetalarge": 75, "pnasnet5large": 75}
"""Networks that smaller images don't fit."""


SHORTENED = ["wide_resnet50_2", "resnext50_32x4d", "densenet121", "shufflenet_v2_x0_5", "mnasnet0_5", "efficientnet_b0",
             "regnet_x_400mf", "regnet_y_400mf"]
QUICK_FAMILIES = [f"short {name}" if name in SHORTENED else name for name in FAMILIES]
"""Every family; those that repeat a block many times, and have no other shapes for it, with that block once in a row."""


def without_repetitions(model: nn.Module) -> nn.Module:
    """Without blocks that are spelled like the one before: same layers, sizes, strides and groups."""
    for stage in model.modules():
        if isinstance(stage, nn.Sequential):
            for at in reversed(range(1, len(stage))):
                if _spelling(stage[at]) == _spelling(stage[at - 1]):
                    del stage[at]
    return model


def _spelling(block: nn.Module) -> str:
    """What a block consists of; how often it is left out in training is another matter."""
    return re.sub(r"(StochasticDepth|DropPath)\(.*\)", "", repr(block))


CUT: dict[str, Callable[[Any], nn.Module]] = {
    "densenet121": lambda models: models.DenseNet(32, (2, 3, 4, 2), 64),
    "wide_resnet50_2": lambda models: models.ResNet(models.resnet.Bottleneck, [2, 1, 1, 1], width_per_group=128),
}
"""Networks that are cut otherwise: DenseNet's layers all differ in their inputs, and one wide last block has 14 million weights."""


def torchvision_model(name: str) -> nn.Module:
    """The network, or what is short for it."""
    if not name.startswith("short "):
        return _torchvision_model(name)
    name = name.removeprefix("short ")
    if name in CUT:
        torch.manual_seed(0)
        return CUT[name](pytest.importorskip("torchvision").models).eval()
    return without_repetitions(_torchvision_model(name))


def _torchvision_model(name: str) -> nn.Module:
    """With a small classifier where the family has a huge one; GoogLeNet and Inception initialise very slowly."""
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.device("meta" if name in CLASSIFIER_INPUTS else "cpu"):
        model = torchvision.models.get_model(name, weights=None, **options)
    if name in CLASSIFIER_INPUTS:
        widths = [CLASSIFIER_INPUTS[name], 32, 32, 10]
        linears = [at for at, layer in enumerate(model.classifier) if isinstance(layer, nn.Linear)]
        for at, inputs, outputs in zip(linears, widths, widths[1:], strict=False):
            model.classifier[at] = nn.Linear(inputs, outputs, device="meta")
        model = model.to_empty(device="cpu")
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
                module.reset_parameters()
    return model.eval()


def timm_model(name: str) -> nn.Module:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=100).eval()
