"""Whole families of networks, random weights and statistics, equal PyTorch in float64."""

import pytest
import torch
from against_torch import assert_equal_to_torch, random
from torch import nn

torchvision = pytest.importorskip("torchvision")

FAMILIES = [
    "alexnet", "vgg11_bn", "resnet18", "resnext50_32x4d", "inception_v3", "googlenet", "densenet121", "squeezenet1_1",
    "mobilenet_v2", "mobilenet_v3_small", "mnasnet0_5", "shufflenet_v2_x0_5", "efficientnet_b0", "regnet_x_400mf",
    "regnet_y_400mf"]
LARGER = ["vgg11", "resnet50", "wide_resnet50_2", "efficientnet_v2_s", "mobilenet_v3_large", "squeezenet1_0",
          "convnext_tiny"]
WIDE = {"alexnet": 9216, "vgg11": 25088, "vgg11_bn": 25088}
"""Families whose classifier has a hundred million weights, and what goes into it."""
SIDES = {"inception_v3": 75}
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


def torchvision_model(name: str) -> nn.Module:
    """Small classifiers where the family has huge ones; GoogLeNet and Inception initialise very slowly."""
    torch.manual_seed(0)
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.device("meta" if name in WIDE else "cpu"):
        model = torchvision.models.get_model(name, weights=None, **options)
    if name in WIDE:
        widths = [WIDE[name], 32, 32, 10]
        linears = [at for at, layer in enumerate(model.classifier) if isinstance(layer, nn.Linear)]
        for at, inputs, outputs in zip(linears, widths, widths[1:], strict=False):
            model.classifier[at] = nn.Linear(inputs, outputs, device="meta")
        model = model.to_empty(device="cpu")
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                nn.init.normal_(tensor, std=0.05)
    return model


@pytest.mark.parametrize("name", [*FAMILIES, *(pytest.param(name, marks=pytest.mark.full) for name in LARGER)])
def test_torchvision(name):
    side = SIDES.get(name, 64)
    assert_equal_to_torch(with_statistics(torchvision_model(name)), random(1, 3, side, side))


@pytest.mark.full
@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    # scalars of the model (an epsilon, a scale) are float32 constants of the graph, PyTorch's are float64
    assert_equal_to_torch(with_statistics(timm.create_model(name)), random(1, 3, 64, 64), tolerance=1e-6)


def test_a_batch_of_any_size():
    assert_equal_to_torch(with_statistics(torchvision_model("squeezenet1_1")), random(3, 3, 40, 56))
