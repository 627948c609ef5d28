"""Normalisation layers by name, as MONAI makes them.

GroupNorm looks at one sample alone: it suits small batches, needs no running statistics that sites would have to agree
on, and is what per-sample differential privacy requires. BatchNorm is what the papers used.
"""

from __future__ import annotations

import monai  # noqa: F401 - as a whole first: of two threads that begin with two parts of it one fails
from monai.networks.layers import get_norm_layer
from torch import nn

from fedage.common.networks.names import Norm

_CHANNELS_PER_GROUP = 8
_MAX_GROUPS = 32


def norm_layer(channels: int, *, norm: Norm, axes: int = 2) -> nn.Module:
    """A normalisation of (B, `channels`, H, W), or of (B, `channels`, I, J, K) with three `axes`.

    GroupNorm has eight channels a group, at most 32 groups (64 channels: 8 groups, 128: 16, from 256 on: 32).

    Raises
    ------
    ValueError
        If GroupNorm's channels do not fill the groups.
    """
    if norm == "batch":
        return _layer("batch", channels, axes)
    groups = min(_MAX_GROUPS, channels // _CHANNELS_PER_GROUP)
    if channels % _CHANNELS_PER_GROUP or channels % groups:
        needed = f"a multiple of {_CHANNELS_PER_GROUP}, above 256 of {_MAX_GROUPS}"
        raise ValueError(f"channels={channels} must be {needed}, for GroupNorm")
    return _layer(("group", {"num_groups": groups}), channels, axes)


def _layer(name: str | tuple[str, dict[str, int]], channels: int, axes: int) -> nn.Module:
    layer: nn.Module = get_norm_layer(name, spatial_dims=axes, channels=channels)
    return layer
