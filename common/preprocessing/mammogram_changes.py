"""Random changes of training mammograms: those of radiographs, and noise, holes and flips; imported inside functions.

Shape legend: B images in a batch, H × W pixels, in −1 to 1 with air at −1.
"""

from __future__ import annotations

import torch

from fedage.common.preprocessing.augmentation import RandomChanges

_AFFINE = RandomChanges(
    shift_fraction=0.03, rotation_degrees=5.0, zoom_fraction=0.05, contrast_fraction=0.1, brightness_sd=0.05
)
_NOISY, _NOISE_SD = 0.3, 0.02
"""Part of images that get noise, and its SD: the published variance is 3 to 9 of 8-bit grey values."""
_HOLED, _MOST_HOLES, _HOLE_SIDE = 0.2, 8, 0.1
"""Part of images that get holes, how many at most, and their sides as parts of the image's."""


def changed(images: torch.Tensor, *, flips: bool, generator: torch.Generator) -> torch.Tensor:
    """Changed images (B, 1, H, W), each by draws of its own; all of them follow from `generator` alone.

    Parameters
    ----------
    flips
        Mirror half of them in each direction.
    """
    moved = _AFFINE.applied(images, generator=generator)
    count, _, rows, columns = images.shape
    draws = torch.rand((count, 4), generator=generator, device=generator.device).to(images)
    noise = torch.randn(images.shape, generator=generator, device=generator.device).to(images)
    moved = moved + _NOISE_SD * noise * (draws[:, 0] < _NOISY).view(-1, 1, 1, 1)
    corners = torch.rand((count, _MOST_HOLES, 2), generator=generator, device=generator.device).to(images)
    holes = torch.randint(1, _MOST_HOLES + 1, (count,), generator=generator, device=generator.device).to(images.device)
    counts = torch.arange(_MOST_HOLES, device=images.device)[None] < holes[:, None]
    counts = counts & (draws[:, 1] < _HOLED)[:, None]
    y, x = (torch.arange(n, device=images.device) / n for n in (rows, columns))
    inside = ((y - corners[..., :1] * (1 - _HOLE_SIDE)).sub(_HOLE_SIDE / 2).abs() <= _HOLE_SIDE / 2)[..., :, None] & (
        (x - corners[..., 1:] * (1 - _HOLE_SIDE)).sub(_HOLE_SIDE / 2).abs() <= _HOLE_SIDE / 2
    )[..., None, :]  # (B, holes, H, W)
    covered = (inside & counts[..., None, None]).any(dim=1, keepdim=True)
    moved = moved.masked_fill(covered, -1.0)
    if flips:
        for axis, column in ((2, 2), (3, 3)):
            chosen = (draws[:, column] < 0.5).view(-1, 1, 1, 1)
            moved = torch.where(chosen, moved.flip(axis), moved)
    return moved
