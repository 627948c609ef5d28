"""SFCN, the simple fully convolutional network of Peng et al. (Medical Image Analysis 2021), from volumes to age bins.

Layer for layer the published one (github.com/ha-ha-ha-han/UKBiobank_deep_pretrain, MIT), with its names, so that a
published state loads strictly. Another width, another normalisation and volumes of another size are options of ours.

Shape legend: B patients in a batch, I × J × K voxels, K bins of age; the published network takes (B, 1, 160, 192, 160)
and has 32-64-128-256-256-64 channels, 40 bins and 2,952,936 parameters.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fedage.common.networks.arrays import ModelRefused
from fedage.common.networks.names import Norm
from fedage.common.networks.norm import norm_layer

POOLINGS = 5
"""By 2, one after each block but the last, in the published network."""
_CHANNELS = (1, 2, 4, 8, 8, 2)
"""Of the six blocks, in units of the first one's."""
DROPOUT = 0.5
"""Before the last layer, in the published network."""
_PARALLEL = "module."
"""Begins the names of a state that was saved under `DataParallel`, as the published one is."""


class SFCN(nn.Module):
    """(B, 1, I, J, K) to log-probabilities of age bins (B, bins).

    Parameters
    ----------
    bins
        Age bins.
    shape
        (I, J, K), each at least 2 ** poolings.
    norm
        "batch" as published, or "group".
    width
        Channels of the first block, a multiple of 8; 32 is the published network.
    poolings
        Of the first so many blocks. With the published five a volume of 32 a side ends in one voxel, of which
        GroupNorm leaves next to nothing; three leave 4 a side.
    dropout
        Part of the values set to 0 before the last layer.
    """

    def __init__(
        self,
        *,
        bins: int,
        shape: tuple[int, int, int],
        norm: Norm = "batch",
        width: int = 32,
        poolings: int = POOLINGS,
        dropout: float = DROPOUT,
    ) -> None:
        super().__init__()
        channels = [width * times for times in _CHANNELS]
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = 1
        for number, outputs in enumerate(channels):
            is_last = number == len(channels) - 1
            size, padding = (1, 0) if is_last else (3, 1)
            blocks[f"conv_{number}"] = nn.Sequential(
                nn.Conv3d(inputs, outputs, size, padding=padding),
                norm_layer(outputs, norm=norm, axes=3),
                *((nn.MaxPool3d(2, stride=2),) if number < poolings else ()),
                nn.ReLU(inplace=True),
            )
            inputs = outputs
        self.feature_extractor, self.channels = nn.Sequential(blocks), inputs
        pooled = tuple(side // 2**poolings for side in shape)
        self.classifier = nn.Sequential(
            OrderedDict(
                average_pool=nn.AvgPool3d(pooled), dropout=nn.Dropout(dropout), conv_6=nn.Conv3d(inputs, bins, 1)
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, I, J, K) to (B, bins). The published forward pass gives a list of one (B, bins, 1, 1, 1)."""
        return self.with_embedding(x)[0]

    def with_embedding(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 1, I, J, K) to (B, bins), and what the last layer sees, (B, channels)."""
        features = self.feature_extractor(x)
        logits = self.classifier(features)  # (B, bins, 1, 1, 1)
        pooled = features.mean(dim=(2, 3, 4))
        # In float32 also under autocast: the loss multiplies logarithms of small probabilities.
        return nn.functional.log_softmax(logits.flatten(1).float(), dim=1), pooled


def load_published(module: SFCN, state: Mapping[str, Any]) -> None:
    """Put a published state into the network, strictly.

    Parameters
    ----------
    module
        With `norm="batch"`, `width=32` and as many bins as the state has.
    state
        As `torch.load(file, weights_only=True)` gives it, with or without the prefix of `DataParallel`.

    Raises
    ------
    ModelRefused
        If its entries are not the network's.
    """
    named = {name.removeprefix(_PARALLEL): tensor for name, tensor in state.items()}
    try:
        module.load_state_dict(named, strict=True)
    except RuntimeError as error:
        wrong = " ".join((str(error).partition("\n")[2] or str(error)).split())
        raise ModelRefused(
            f"the state is not one of this network: {wrong[:300]}; it must be of SFCN with {_bins(module)} bins, "
            "width 32 and BatchNorm"
        ) from None


def _bins(module: SFCN) -> int:
    head = module.classifier[-1]
    return int(head.out_channels) if isinstance(head, nn.Conv3d) else 0
