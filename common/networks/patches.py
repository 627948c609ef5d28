"""Patches of a volume at places of a grid, and a network from a patch to a local age (after Bintsi et al., MLCN 2020).

The paper has 3D patches of fixed places, a network for each, and an age of each; its sizes and layers are not to be
read. Our own design: convolutions of 3³ with normalisation, ReLU and pooling, one trunk for all places that is told the
place by an embedding, or one trunk for each.

Shape legend: B volumes (I, J, K) of one channel, P places, k patches of s³ voxels of each volume.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn

from fedage.common.networks.names import Norm
from fedage.common.networks.norm import norm_layer

LEAST_COVERED = 0.1
"""A patch of which less is brain (not 0) has no age of its own."""
HIDDEN = 32
_EMBEDDING = 8


def starts(side: int, patch: int, count: int) -> list[int]:
    """First voxels along an axis, evenly from its first voxel to its last possible one."""
    return [
        round(number * (side - patch) / (count - 1)) if count > 1 else (side - patch) // 2 for number in range(count)
    ]


def corners(shape: Sequence[int], *, patch: int, per_axis: int) -> list[tuple[int, int, int]]:
    """First voxels of the P places, those along K next to each other."""
    i, j, k = (starts(side, patch, per_axis) for side in shape)
    return list(itertools.product(i, j, k))


def cut(volumes: torch.Tensor, places: torch.Tensor, at: Sequence[tuple[int, int, int]], *, patch: int) -> torch.Tensor:
    """Patches (B, k, 1, s, s, s) of volumes (B, 1, I, J, K) at places (B, k), numbers into `at`."""
    made = []
    for volume, chosen in zip(volumes, places.tolist(), strict=True):
        boxes = [tuple(slice(first, first + patch) for first in at[place]) for place in chosen]
        made.append(torch.stack([volume[(slice(None), *box)] for box in boxes]))
    return torch.stack(made)


class PatchNetwork(nn.Module):
    """Patches (B, k, 1, s, s, s) of places (B, k) to local ages (B, k) on the network's scale.

    Parameters
    ----------
    places
        P.
    by_place
        One trunk for each place instead of one that is told the place; k must then be P, in the places' order.
    """

    def __init__(self, *, places: int, width: int, blocks: int, norm: Norm, by_place: bool = False) -> None:
        super().__init__()
        self._by_place = by_place
        embedded = 0 if by_place else _EMBEDDING
        self.embedding = None if by_place else nn.Embedding(places, _EMBEDDING)
        self.trunks = nn.ModuleList(
            _trunk(width, blocks=blocks, norm=norm, embedded=embedded) for _ in range(places if by_place else 1)
        )

    def forward(self, patches: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """(B, k)."""
        if self._by_place:
            ages = [trunk(patches[:, place], None) for place, trunk in enumerate(self.trunks)]
            return torch.cat(ages, dim=1)
        assert self.embedding is not None
        (trunk,) = self.trunks
        known = self.embedding(places).flatten(0, 1)  # (B·k, E)
        return torch.as_tensor(trunk(patches.flatten(0, 1), known)).reshape(places.shape)


class _Trunk(nn.Module):
    def __init__(self, layers: nn.Sequential, head: nn.Sequential) -> None:
        super().__init__()
        self.layers, self.head = layers, head

    def forward(self, x: torch.Tensor, known: torch.Tensor | None) -> torch.Tensor:
        """(R, 1, s, s, s), and what is known of the places (R, E), to (R, 1)."""
        features = self.layers(x).mean(dim=(2, 3, 4))
        return torch.as_tensor(self.head(features if known is None else torch.cat([features, known], dim=1)))


def _trunk(width: int, *, blocks: int, norm: Norm, embedded: int) -> _Trunk:
    layers: list[nn.Module] = []
    inputs = 1
    for number in range(blocks):
        outputs = width * 2**number
        layers += [nn.Conv3d(inputs, outputs, 3, padding=1, bias=False), norm_layer(outputs, norm=norm, axes=3)]
        layers += [nn.ReLU(), nn.MaxPool3d(2)]
        inputs = outputs
    head = nn.Sequential(nn.Linear(inputs + embedded, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
    return _Trunk(nn.Sequential(*layers), head)


def is_brain(patches: torch.Tensor) -> torch.Tensor:
    """Which patches (B, k, 1, s, s, s) are brain enough for an age of their own, (B, k); all where none is."""
    covered = (patches != 0).float().mean(dim=(2, 3, 4, 5)) >= LEAST_COVERED
    return covered | ~covered.any(dim=1, keepdim=True)


def mean_of_known(ages: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """The mean (B,) of ages (B, k) over those that are known (B, k)."""
    weights = known.to(ages.dtype)
    return (ages * weights).sum(dim=1) / weights.sum(dim=1)
