"""Names that options use for parts of networks; without torch, so that a command line can read options."""

from __future__ import annotations

from typing import Literal

Norm = Literal["group", "batch"]
Backbone = Literal["resnet18", "resnet50", "efficientnet-b0", "densenet121", "convnext-tiny"]
"""Image networks of `fedage.common.networks.backbones`."""
VolumeEncoder = Literal["resnet18", "densenet121"]
"""Encoders of `fedage.common.networks.encoders`."""
