"""The network of `table-mlp`: a standardisation and a linear model, both fixed, and a correction that is trained.

Legend: B patients in a batch, p features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


class TableNetwork(nn.Module):
    """Standardisation and a linear model, fixed, plus a trained correction; see the module's docstring."""

    def __init__(self, features: int, hidden: Sequence[int]) -> None:
        super().__init__()
        for name in ("medians", "means", "units", "coefficients"):
            self.register_buffer(name, torch.zeros(features))
        for name in ("intercept", "age_sd", "noise"):
            self.register_buffer(name, torch.zeros(1))
        self.medians: torch.Tensor
        self.means: torch.Tensor
        self.units: torch.Tensor
        self.coefficients: torch.Tensor
        self.intercept: torch.Tensor
        self.age_sd: torch.Tensor
        self.noise: torch.Tensor
        layers: list[nn.Module] = []
        for inside, outside in zip((features, *hidden), hidden, strict=False):
            layers += [nn.Linear(inside, outside), nn.GELU()]
        last = nn.Linear((features, *hidden)[-1], 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.correction = nn.Sequential(*layers, last)

    def set_standard(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Fill the buffers; a feature of unit 0 is not looked at."""
        with torch.no_grad():
            for name, values in arrays.items():
                getattr(self, name).copy_(torch.from_numpy(values.astype(np.float32)))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """(B, p), or (B, 2p) with noise, to (B,)."""
        p = self.medians.shape[0]
        x = batch[:, :p]
        z = (torch.where(torch.isfinite(x), x, self.medians) - self.means) * self.units
        if batch.shape[1] > p:
            z = z + self.noise * torch.sign(self.units) * batch[:, p:]
        linear = self.intercept + z @ self.coefficients
        correction: torch.Tensor = self.correction(z).squeeze(1)
        return linear + self.age_sd * correction
