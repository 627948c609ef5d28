"""Normalisation layers by name.

GroupNorm looks at one sample alone: it suits small batches, needs no running statistics that sites would have to agree
on, and is what per-sample differential privacy requires. BatchNorm is what the papers used.
"""

from __future__ import annotations

from torch import nn

from fedage.common.networks.names import Norm

_CHANNELS_PER_GROUP = 8
_MAX_GROUPS = 32


def norm_layer(channels: int, *, norm: Norm) -> nn.Module:
    """A normalisation of (B, `channels`, H, W).

    GroupNorm has eight channels a group, at most 32 groups (64 channels: 8 groups, 128: 16, from 256 on: 32).

    Raises
    ------
    ValueError
        If GroupNorm's channels do not fill the groups.
    """
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    groups = min(_MAX_GROUPS, channels // _CHANNELS_PER_GROUP)
    if channels % _CHANNELS_PER_GROUP or channels % groups:
        needed = f"a multiple of {_CHANNELS_PER_GROUP}, above 256 of {_MAX_GROUPS}"
        raise ValueError(f"channels={channels} must be {needed}, for GroupNorm")
    return nn.GroupNorm(groups, channels)
