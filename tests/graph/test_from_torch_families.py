"""Whole families of networks, random weights and statistics, equal PyTorch in float64."""

import pytest
import torch
from against_torch import assert_equal_to_torch, random
from families import LEAST_SIDE, QUICK_FAMILIES, SHORTENED, timm_model, torchvision_model
from torch import nn

LARGER = ["vgg11", "resnet50", "wide_resnet50_2", "efficientnet_v2_s", "mobilenet_v3_large", "squeezenet1_0",
          "convnext_tiny"]
QUICK = [name for name in QUICK_FAMILIES if name.removeprefix("short ") not in LARGER]
WHOLE = list(dict.fromkeys(SHORTENED + LARGER))
TIMM = [
    "resnet18", "efficientnet_lite0", "repvgg_a0", "mobilenetv3_small_100", "dla34", "hardcorenas_a", "ese_vovnet19b_dw",
    "cspresnet50", "ecaresnet26t", "skresnet18", "mixnet_s", "ghostnet_100", "hrnet_w18_small", "tresnet_m",
    "convnext_atto", "poolformer_s12", "resnest14d", "legacy_xception", "cspdarknet53", "hgnetv2_b0", "rexnet_100"]


def with_statistics(model: nn.Module) -> nn.Module:
    """Random batch-norm statistics, so that an error in one can't hide behind zeros and ones."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.25, 0.25)
            module.running_var.uniform_(0.5, 1.5)
    return model


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.full) for name in WHOLE)])
def test_torchvision(name):
    side = LEAST_SIDE.get(name, 64)
    assert_equal_to_torch(with_statistics(torchvision_model(name)), random(1, 3, side, side))


@pytest.mark.full
@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    # scalars of the model (an epsilon, a scale) are float32 constants of the graph, PyTorch's are float64
    assert_equal_to_torch(with_statistics(timm_model(name)), random(1, 3, 64, 64), tolerance=1e-6)


def test_a_batch_of_any_size():
    assert_equal_to_torch(with_statistics(torchvision_model("squeezenet1_1")), random(3, 3, 40, 56))
