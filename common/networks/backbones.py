"""Published image networks by name, their features only: MONAI's where it has them.

Shape legend: B images of three channels, H × W pixels; features (B, C, H / 32, W / 32).

Of MONAI's `ResNet` the shortcuts' biases and the stem's stride are set as published, and of its EfficientNet the random
leaving-out of blocks is off, as it draws from torch's global generator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import monai  # noqa: F401 - as a whole first: of two threads that begin with two parts of it one fails
import torch
from monai.networks.nets import DenseNet121, EfficientNetBN, resnet18, resnet50
from torch import nn
from torch.nn import functional

from fedage.common.networks.convnext import CHANNELS as CONVNEXT_CHANNELS
from fedage.common.networks.convnext import ConvNeXtTiny
from fedage.common.networks.names import Backbone, Norm
from fedage.common.networks.norm import norm_layer

STANDARD_WIDTH = 64
"""Channels of a ResNet's first stage as published."""


@dataclass(frozen=True)
class _Made:
    network: nn.Module
    channels: int
    features: Callable[[nn.Module, torch.Tensor], torch.Tensor]


class Features(nn.Module):
    """A backbone: (B, 3, H, W) to features (B, C, H / 32, W / 32).

    Parameters
    ----------
    name
        Which.
    norm
        `batch` as published, or `group` in its place everywhere.
    width
        Channels of the first stage of a ResNet, a multiple of 8; 64 as published. The other networks have one width.

    Attributes
    ----------
    channels
        C.
    """

    def __init__(self, name: Backbone, *, norm: Norm = "batch", width: int = STANDARD_WIDTH) -> None:
        super().__init__()
        made = _MAKERS[name](width)
        self.network, self.channels, self._features = made.network, made.channels, made.features
        if norm == "group":
            _use_group_norm(self.network)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) to (B, C, H / 32, W / 32)."""
        return self._features(self.network, x)


def _resnet18(width: int) -> _Made:
    network = resnet18(
        spatial_dims=2,
        n_input_channels=3,
        conv1_t_stride=2,
        bias_downsample=False,
        feed_forward=False,
        widen_factor=width / STANDARD_WIDTH,
    )
    return _Made(network, 8 * width, _of_resnet)


def _resnet50(width: int) -> _Made:
    network = resnet50(
        spatial_dims=2,
        n_input_channels=3,
        conv1_t_stride=2,
        bias_downsample=False,
        feed_forward=False,
        widen_factor=width / STANDARD_WIDTH,
    )
    return _Made(network, 32 * width, _of_resnet)


def _efficientnet_b0(_width: int) -> _Made:
    network = EfficientNetBN("efficientnet-b0", pretrained=False, spatial_dims=2, in_channels=3, num_classes=2)
    channels = network._fc.in_features
    network._fc = nn.Identity()
    for module in network.modules():
        if hasattr(module, "drop_connect_rate"):
            module.drop_connect_rate = 0.0
    return _Made(network, channels, _of_efficientnet)


def _densenet121(_width: int) -> _Made:
    network = DenseNet121(spatial_dims=2, in_channels=3, out_channels=2)
    channels = network.class_layers.out.in_features
    return _Made(network.features, channels, lambda features, x: functional.relu(features(x)))


def _convnext_tiny(_width: int) -> _Made:
    return _Made(ConvNeXtTiny(), CONVNEXT_CHANNELS[-1], lambda network, x: torch.as_tensor(network(x)))


_MAKERS: dict[Backbone, Callable[[int], _Made]] = {
    "resnet18": _resnet18,
    "resnet50": _resnet50,
    "efficientnet-b0": _efficientnet_b0,
    "densenet121": _densenet121,
    "convnext-tiny": _convnext_tiny,
}


def _of_resnet(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    for name in ("conv1", "bn1", "act", "maxpool", "layer1", "layer2", "layer3", "layer4"):
        x = getattr(network, name)(x)
    return x


def _of_efficientnet(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    x = network.get_submodule("_swish")(network.get_submodule("_bn0")(_padded(network, "_conv_stem", x)))
    x = network.get_submodule("_blocks")(x)
    return torch.as_tensor(
        network.get_submodule("_swish")(network.get_submodule("_bn1")(_padded(network, "_conv_head", x)))
    )


def _padded(network: nn.Module, name: str, x: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(network.get_submodule(name)(network.get_submodule(f"{name}_padding")(x)))


def _use_group_norm(network: nn.Module) -> None:
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, norm_layer(child.num_features, norm="group"))
