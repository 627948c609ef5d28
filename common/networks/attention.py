"""Attention of the positions of a feature map to each other and to another map (Mammo-AGE's local path).

Shape legend: R maps, d channels, h × w positions; heads of eight channels. Every random number is drawn from the given
generator; without one nothing is dropped. In training the weights of positions to each other are computed twice instead
of kept: of 32 × 16 positions those of twenty attentions are a GiB for each exam.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from fedage.common.networks.names import Norm
from fedage.common.networks.norm import norm_layer

HEAD_CHANNELS = 8


def dropped(x: torch.Tensor, part: float, generator: torch.Generator | None) -> torch.Tensor:
    """Values set to 0 with probability `part`, the others scaled up; `x` itself without a generator."""
    if generator is None or part == 0:
        return x
    left_out = torch.rand(x.shape, generator=generator, device=x.device) < part
    return x.masked_fill(left_out, 0.0) / (1 - part)


class Projection(nn.Module):
    """Two 1×1 convolutions, each with normalisation and ReLU: (R, inputs, h, w) to (R, outputs, h, w)."""

    def __init__(self, inputs: int, outputs: int, *, norm: Norm) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (inputs, outputs):
            layers += [nn.Conv2d(channels, outputs, kernel_size=1, bias=False), norm_layer(outputs, norm=norm)]
            layers += [nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(R, inputs, h, w) to (R, outputs, h, w)."""
        return torch.as_tensor(self.layers(x))


class Attention(nn.Module):
    """Positions (R, N, d) look at positions (R, M, d)."""

    def __init__(self, channels: int, *, dropout: float) -> None:
        super().__init__()
        if channels % HEAD_CHANNELS:
            raise ValueError(f"channels={channels} must be a multiple of {HEAD_CHANNELS}, the channels of a head")
        self.query, self.key_value = nn.Linear(channels, channels), nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, channels)
        self.dropout = dropout
        for layer in (self.query, self.key_value, self.out):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor, seen: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """(R, N, d) and (R, M, d) to (R, N, d)."""
        q, (k, v) = self._heads(self.query(x)), map(self._heads, self.key_value(seen).chunk(2, dim=-1))
        if generator is None:
            mixed = self._mixed(q, k, v, None)
        else:
            # A seed, so that what is dropped is the same when it is computed again.
            seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
            mixed = checkpoint(self._mixed, q, k, v, seed, use_reentrant=False, preserve_rng_state=False)
        return dropped(self.out(mixed.transpose(1, 2).flatten(2)), self.dropout, generator)

    def _mixed(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seed: int | None) -> torch.Tensor:
        """(R, heads, N, 8): what each position makes of those it looks at."""
        generator = None if seed is None else torch.Generator(q.device).manual_seed(seed)
        weights = (q @ k.transpose(-2, -1) * HEAD_CHANNELS**-0.5).softmax(dim=-1)  # (R, heads, N, M)
        return torch.as_tensor(dropped(weights, self.dropout, generator) @ v)

    @staticmethod
    def _heads(x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:-1], -1, HEAD_CHANNELS).transpose(1, 2)  # (R, heads, N, 8)


class LocalBlock(nn.Module):
    """x + projection of [x, its attention to itself, its attention to the exam's map]."""

    def __init__(self, channels: int, *, norm: Norm, dropout: float) -> None:
        super().__init__()
        self.to_itself = Attention(channels, dropout=dropout)
        self.to_exam = Attention(channels, dropout=dropout)
        self.mix = Projection(3 * channels, channels, norm=norm)

    def forward(self, x: torch.Tensor, exam: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """(R, d, h, w), and the exam's positions (R, M, d), to (R, d, h, w)."""
        rows = x.flatten(2).transpose(1, 2)  # (R, N, d)
        own = self.to_itself(rows, rows, generator).transpose(1, 2).reshape(x.shape)
        other = self.to_exam(rows, exam, generator).transpose(1, 2).reshape(x.shape)
        return torch.as_tensor(x + self.mix(torch.cat([x, own, other], dim=1)))
