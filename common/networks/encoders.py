"""3D encoders of contrastive learning by name, MONAI's, with the projection on which patients are compared.

Shape legend: B volumes (I, J, K) of one channel, C features, D dimensions of the projection.

As published (OpenBHB, arXiv 2507.01794): ResNet-18 with a stem of 7³ and stride 2, shortcuts without bias, 33,160,000
parameters; DenseNet-121, of which MONAI's 11,243,649 parameters hold a head of 1,025 that is not used here; an MLP
C → C → D. Our own design: each dimension may be brought to mean 0 and SD 1 over a batch at the end (`centred`, without
parameters). Features after a ReLU give all patients nearly the same direction, before any training and long after, and
the sphere then leaves little to contrast. Also our own: BatchNorm's running means and variances follow with momentum
0.3 instead of 0.1. With few steps a round they lag behind the layers, and embeddings of single patients then lie within
thousandths of each other.
"""

from __future__ import annotations

import monai  # noqa: F401 - as a whole first: of two threads that begin with two parts of it one fails
import torch
from monai.networks.nets import DenseNet121, resnet18
from torch import nn
from torch.nn import functional

from fedage.common.networks.names import VolumeEncoder

_WIDTH = 64
_GROWTH = 32
_MOMENTUM = 0.3


class ProjectedEncoder(nn.Module):
    """(B, 1, I, J, K) to (B, D), not yet on the unit sphere.

    Parameters
    ----------
    name
        Which encoder.
    dimensions
        D.
    width
        Channels of the first layer, a multiple of 8; 64 is published.
    centred
        Whether each dimension has mean 0 and SD 1 over a batch; published is without.
    """

    def __init__(self, name: VolumeEncoder, *, dimensions: int, width: int = _WIDTH, centred: bool = False) -> None:
        super().__init__()
        if name == "resnet18":
            self.encoder: nn.Module = resnet18(
                spatial_dims=3,
                n_input_channels=1,
                conv1_t_stride=2,
                bias_downsample=False,
                feed_forward=False,
                widen_factor=width / _WIDTH,
            )
            channels = 8 * width
        else:
            network = DenseNet121(
                spatial_dims=3,
                in_channels=1,
                out_channels=1,
                init_features=width,
                growth_rate=width * _GROWTH // _WIDTH,
            )
            channels = network.class_layers.out.in_features
            self.encoder = nn.Sequential(network.features, nn.ReLU())
        for module in self.encoder.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.momentum = _MOMENTUM
        self.projection = nn.Sequential(
            nn.Linear(channels, channels), nn.ReLU(inplace=True), nn.Linear(channels, dimensions)
        )
        self.centring = nn.BatchNorm1d(dimensions, affine=False, momentum=_MOMENTUM) if centred else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, I, J, K) to (B, D)."""
        features = self.encoder(x)
        if features.ndim == 5:
            features = functional.adaptive_avg_pool3d(features, 1).flatten(1)
        return torch.as_tensor(self.centring(self.projection(features)))
