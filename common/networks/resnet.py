"""ResNet-18 (He et al., CVPR 2016) for one-channel images, with Coordinate Attention in every basic block.

Of MONAI (1.6) the normalisation layers are used. Its `ResNet` is not: of the normalisation that it is given only the
stem's layer is made, those of its blocks are batch normalisation, which training with privacy for each patient cannot
have. Its `ResNetBlock` takes a normalisation, and has no place for the attention before its sum.

Shape legend: B samples, H × W pixels, `width` the channels of the first stage (64 in the paper).
The stages have width, 2·width, 4·width and 8·width channels, two basic blocks each, and halve H × W from the second on.

Where the attention sits is our own design, since the chest X-ray paper that combines the two does not say: at the end
of the residual branch, after its second normalisation and before the sum, where SE-ResNet has its gate.
"""

from __future__ import annotations

import torch
from torch import nn

from fedage.common.networks.coordinate_attention import CoordinateAttention
from fedage.common.networks.names import Norm
from fedage.common.networks.norm import norm_layer

_BLOCKS_PER_STAGE = (2, 2, 2, 2)


def _conv3(inputs: int, outputs: int, *, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions, Coordinate Attention, and the sum with the shortcut."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, norm: Norm) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _conv3(inputs, outputs, stride=stride),
            norm_layer(outputs, norm=norm),
            nn.ReLU(inplace=True),
            _conv3(outputs, outputs),
            norm_layer(outputs, norm=norm),
            CoordinateAttention(outputs, norm=norm),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False), norm_layer(outputs, norm=norm)
            )
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        return torch.as_tensor(self.activation(self.residual(x) + self.shortcut(x)))


class ResNet18(nn.Module):
    """ResNet-18 with Coordinate Attention: (B, 1, H, W) to (B, outputs).

    Parameters
    ----------
    norm
        "group" or "batch", everywhere, the attention included.
    width
        Channels of the first stage, a multiple of 8; 64 is the standard network.
    outputs
        Values a sample.
    sex
        Whether the sex, 1 male, -1 female, 0 unknown, scales and shifts the pooled features (FiLM, Perez et al., AAAI
        2018; how the paediatric paper uses sex is not said). It changes nothing before any training, nor for who is 0.
    """

    def __init__(self, *, norm: Norm, width: int = 64, outputs: int = 1, sex: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, kernel_size=7, stride=2, padding=3, bias=False),
            norm_layer(width, norm=norm),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        )
        blocks: list[nn.Module] = []
        inputs = width
        for stage, count in enumerate(_BLOCKS_PER_STAGE):
            channels = width * 2**stage
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(BasicBlock(inputs, channels, stride=stride, norm=norm))
                inputs = channels
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, outputs)
        self.by_sex = nn.Parameter(torch.zeros(2 * inputs)) if sex else None
        self._initialise()

    def forward(self, x: torch.Tensor, sex: torch.Tensor | None = None) -> torch.Tensor:
        """(B, 1, H, W), and sex (B, 1) if the network takes it, to (B, outputs)."""
        pooled = self.stages(self.stem(x)).mean(dim=(2, 3))  # (B, 8·width)
        if self.by_sex is not None and sex is not None:
            scale, shift = (sex * self.by_sex).chunk(2, dim=1)
            pooled = pooled * (1 + scale) + shift
        return torch.as_tensor(self.head(pooled))

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # Near zero, so that the first prediction is the head's bias whatever the image.
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
