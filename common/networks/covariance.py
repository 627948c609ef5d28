"""The network of `cortex-vnn`: coVariance filters, one graph node a region, and a readout without weights to learn.

A layer maps features (F, p) to (G, p): out_g = ReLU(Σ_f Σ_{k<K} h_{mfgk} Cᵏ x_f + b_{mg}). With C = VΛVᵀ the filter is
V diag(Σ_k h_k λᵏ) Vᵀ, which costs two products with V instead of K with C (Sihag et al., NeurIPS 2022). No weight
belongs to a region, so the same weights work on any C.

Legend: B patients in a batch, p regions, M models side by side, F and G features of a layer, K taps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

FROM_RANDOM, FROM_LINEAR = 3.0, 100.0
"""Bias of the last layer before training, in SDs of age, which the output leaves out again: a few SDs from the bend of
its ReLU where the filters begin at random, and far from it where they begin as a linear model."""


class CovarianceFilter(nn.Module):
    """Filters of M models from F features to G, of K taps each, with a bias and a ReLU."""

    def __init__(self, models: int, inside: int, outside: int, taps: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inside * taps)
        self.taps = nn.Parameter(torch.empty(models, inside, outside, taps).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(models, outside).uniform_(-bound, bound))

    def forward(self, x: torch.Tensor, values: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """(B, M, F, p), of the first layer (B, 1, 1, p), to (B, M, G, p).

        Parameters
        ----------
        values, vectors
            Eigenvalues (p,) and eigenvectors (p, p) of C.
        """
        powers = values[:, None] ** torch.arange(self.taps.shape[-1], device=values.device)
        response = torch.einsum("mfgk,pk->mfgp", self.taps, powers)
        spectrum = (x @ vectors).expand(-1, len(response), -1, -1)
        filtered = torch.einsum("bmfp,mfgp->bmgp", spectrum, response) @ vectors.T
        return torch.relu(filtered + self.bias[:, :, None])


class CovarianceNetwork(nn.Module):
    """M networks on the same regions; see the module's docstring.

    Buffers, which training does not change: `medians`, `means` and `units` (1 / SD, 0 for a region that is not looked
    at) of the regions, `covariance` (p, p) with largest eigenvalue 1, `weights` (p,) of the regions in the readout,
    `age` (2,), mean and SD of age on its scale, and `noise` (1,), the SD of that in training.
    """

    def __init__(
        self, regions: int, *, models: int, features: Sequence[int], taps: Sequence[int], from_linear: bool
    ) -> None:
        super().__init__()
        for name in ("medians", "means", "units", "weights"):
            self.register_buffer(name, torch.zeros(regions))
        self.register_buffer("covariance", torch.zeros(regions, regions))
        self.register_buffer("age", torch.zeros(2))
        self.register_buffer("noise", torch.zeros(1))
        self.medians: torch.Tensor
        self.means: torch.Tensor
        self.units: torch.Tensor
        self.weights: torch.Tensor
        self.covariance: torch.Tensor
        self.age: torch.Tensor
        self.noise: torch.Tensor
        self.layers = nn.ModuleList(
            CovarianceFilter(models, inside, outside, many)
            for (inside, outside), many in zip(pairwise((1, *features)), taps, strict=True)
        )
        self._level = FROM_LINEAR if from_linear else FROM_RANDOM
        nn.init.constant_(self.filters[-1].bias, self._level)

    @property
    def filters(self) -> list[CovarianceFilter]:
        """The layers in order."""
        return [layer for layer in self.layers if isinstance(layer, CovarianceFilter)]

    def set_standard(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Fill the buffers."""
        with torch.no_grad():
            for name, values in arrays.items():
                getattr(self, name).copy_(torch.from_numpy(values.astype(np.float32)))

    def begin_as(self, taps: NDArray[np.float64]) -> None:
        """Make every model one linear filter Σ_k taps_k Cᵏ, with taps (K,) of the last layer's number.

        Two features of each layer but the last are ReLU(z) and ReLU(−z), whose difference is z; the others, which
        begin at random, count for nothing before training.
        """
        with torch.no_grad():
            for layer in self.filters[:-1]:
                inside = layer.taps.shape[1]
                layer.taps[:, :, :2] = 0.0
                layer.bias[:, :2] = 0.0
                for here, sign in ((0, 1.0), (1, -1.0)):
                    layer.taps[:, 0, here, 0] = sign
                    if inside > 1:
                        layer.taps[:, 1, here, 0] = -sign
            last, first = self.filters[-1].taps, torch.from_numpy(taps.astype(np.float32))
            # Of mean 0 over the features of the last layer, whose mean is the output.
            last.sub_(last.mean(dim=2, keepdim=True))
            last[:, 0] = first
            if last.shape[1] > 1:
                last[:, 1] = -first

    def contributions(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows (B, p), or (B, 2p) with normal noise, to each region's contribution (B, M, p), in SDs of age."""
        p = self.medians.shape[0]
        x = rows[:, :p]
        z = (torch.where(torch.isfinite(x), x, self.medians) - self.means) * self.units
        if rows.shape[1] > p:
            z = z + self.noise * torch.sign(self.units) * rows[:, p:]
        values, vectors = torch.linalg.eigh(self.covariance)
        x = z[:, None, None, :]
        for layer in self.filters:
            x = layer(x, values.clamp(min=0.0), vectors)
        return self.weights * (x.mean(dim=2) - self._level)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows to ages (B, M) about their mean, in SDs: the mean of the contributions of the regions looked at."""
        return self.mean_over_regions(self.contributions(rows))

    def residuals(self, contributions: torch.Tensor) -> torch.Tensor:
        """(B, M, p) less their mean over the regions looked at; 0 for a region that is not."""
        return (contributions - self.mean_over_regions(contributions)[..., None]) * torch.sign(self.units)

    def along_eigenvectors(self, residuals: torch.Tensor, *, most: int) -> torch.Tensor:
        """|⟨r/‖r‖, v⟩| of residuals (B, M, p) with the leading eigenvectors of C, the mean over models, (B, most)."""
        _, vectors = torch.linalg.eigh(self.covariance)
        size = residuals.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        along: torch.Tensor = residuals / size @ vectors.flip(1)[:, :most]
        return along.abs().mean(dim=1)

    def mean_over_regions(self, contributions: torch.Tensor) -> torch.Tensor:
        """(B, M, p) to (B, M)."""
        return contributions.sum(dim=-1) / (self.units > 0).sum().clamp(min=1)
