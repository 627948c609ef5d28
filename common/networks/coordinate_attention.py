"""Coordinate Attention (Hou, Zhou, Feng, CVPR 2021): gates that know where in height and width a feature lies.

With x (B, C, H, W), m = max(8, C // reduction) and σ the sigmoid:

    x_h = mean over W (B, C, H, 1)         x_w = mean over H, transposed (B, C, W, 1)
    y   = h-swish(norm(F₁[x_h; x_w]))      (B, m, H + W, 1), F₁ a 1×1 convolution shared by both directions
    a_h = σ(F_h y_h) (B, C, H, 1)          a_w = σ(F_w y_w) (B, C, 1, W)
    out = x · a_h · a_w
"""

from __future__ import annotations

import torch
from torch import nn

from fedage.common.networks.names import Norm
from fedage.common.networks.norm import norm_layer


class CoordinateAttention(nn.Module):
    """Gate each feature by its row and its column.

    Parameters
    ----------
    channels
        C of the input and of the output.
    norm
        Normalisation of the squeezed features; the paper's is "batch".
    reduction
        C over the width of the shared squeeze, which is never below 8.
    """

    def __init__(self, channels: int, *, norm: Norm, reduction: int = 32) -> None:
        super().__init__()
        squeezed = max(8, channels // reduction)
        self.squeeze = nn.Conv2d(channels, squeezed, kernel_size=1)
        self.norm = norm_layer(squeezed, norm=norm)
        self.activation = nn.Hardswish()
        self.rows = nn.Conv2d(squeezed, channels, kernel_size=1)
        self.columns = nn.Conv2d(squeezed, channels, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        height, width = x.shape[2:]
        by_row = x.mean(dim=3, keepdim=True)  # (B, C, H, 1)
        by_column = x.mean(dim=2, keepdim=True).transpose(2, 3)  # (B, C, W, 1)
        y = self.activation(self.norm(self.squeeze(torch.cat([by_row, by_column], dim=2))))  # (B, m, H + W, 1)
        y_rows, y_columns = y.split([height, width], dim=2)
        gate_rows = self.rows(y_rows).sigmoid()  # (B, C, H, 1)
        gate_columns = self.columns(y_columns.transpose(2, 3)).sigmoid()  # (B, C, 1, W)
        return torch.as_tensor(x * gate_rows * gate_columns)
