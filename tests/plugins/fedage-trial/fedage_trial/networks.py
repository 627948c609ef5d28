"""The networks of the package; imported inside functions only."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn


class ViewsNetwork(nn.Module):
    """One backbone shared by the views; the mean over those that are there, then age. Views (B, 1, S, S)."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(1, channels, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.head = nn.Linear(4 * channels, 1)

    def forward(self, views: Mapping[str, torch.Tensor], present: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(B,)."""
        total, count = 0.0, 0.0
        for name, view in views.items():
            here = present[name].to(view.dtype)[:, None]
            total = total + here * self.backbone(view)
            count = count + here
        out: torch.Tensor = self.head(total / count.clamp(min=1.0)).squeeze(1)
        return out


class Encoder(nn.Module):
    """(B, 1, S, S) to (B, D)."""

    def __init__(self, size: int, dimensions: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(size * size, 32), nn.ReLU(), nn.Linear(32, dimensions))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layers(x)
        return out


class VolumeNetwork(nn.Module):
    """(B, 1, I, J, K) to an embedding (B, D), age (B,) and the logit of being male (B,)."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv3d(1, 4, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv3d(4, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool3d(2),
            nn.Flatten(),
            nn.Linear(64, dimensions),
            nn.Tanh(),
        )
        self.age = nn.Linear(dimensions, 1)
        self.male = nn.Linear(dimensions, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        embedding = self.features(x)
        return {
            "embedding": embedding,
            "age": self.age(embedding).squeeze(1),
            "male": self.male(embedding).squeeze(1),
        }


class BesideNetwork(nn.Module):
    """(B, 1, S, S) and a row (B, p), NaN where not known, to age (B,); a row beside which nothing is known adds 0."""

    def __init__(self, size: int, columns: int) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Flatten(), nn.Linear(size * size, 16), nn.ReLU(), nn.Linear(16, 1))
        self.row = nn.Linear(2 * columns, 1, bias=False) if columns else None

    def forward(self, image: torch.Tensor, row: torch.Tensor | None) -> torch.Tensor:
        out: torch.Tensor = self.image(image).squeeze(1)
        if self.row is not None and row is not None:
            known = torch.isfinite(row)
            beside = torch.cat([torch.nan_to_num(row), known.to(row.dtype)], dim=1)
            out = out + self.row(beside).squeeze(1)
        return out
