"""ConvNeXt-Tiny (Liu et al., CVPR 2022), its features only; MONAI (1.6) has none.

Shape legend: B images, H × W pixels; four stages of 3, 3, 9, 3 blocks with 96, 192, 384, 768 channels at 1/4, 1/8, 1/16
and 1/32 of the side. Without the stochastic depth of its training, which the paper on mammograms does not speak of.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

CHANNELS = (96, 192, 384, 768)
_BLOCKS = (3, 3, 9, 3)
_SCALE = 1e-6


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of (B, C, H, W), pixel by pixel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to the same."""
        moved = functional.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return moved.permute(0, 3, 1, 2)


class Block(nn.Module):
    """A 7×7 convolution of each channel, then a network of one hidden layer at each pixel; added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, kernel_size=7, padding=3, groups=channels)
        self.norm = ChannelNorm(channels, eps=1e-6)
        self.expand = nn.Conv2d(channels, 4 * channels, kernel_size=1)
        self.reduce = nn.Conv2d(4 * channels, channels, kernel_size=1)
        self.scale = nn.Parameter(torch.full((channels, 1, 1), _SCALE))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to the same."""
        inside = functional.gelu(self.expand(self.norm(self.depthwise(x))))
        return torch.as_tensor(x + self.scale * self.reduce(inside))


class ConvNeXtTiny(nn.Module):
    """(B, 3, H, W) to features (B, 768, H / 32, W / 32)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for stage, (channels, blocks) in enumerate(zip(CHANNELS, _BLOCKS, strict=True)):
            if stage == 0:
                layers += [nn.Conv2d(inputs, channels, kernel_size=4, stride=4), ChannelNorm(channels, eps=1e-6)]
            else:
                layers += [ChannelNorm(inputs, eps=1e-6), nn.Conv2d(inputs, channels, kernel_size=2, stride=2)]
            layers += [Block(channels) for _ in range(blocks)]
            inputs = channels
        self.features = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) to (B, 768, H / 32, W / 32)."""
        return torch.as_tensor(self.features(x))
