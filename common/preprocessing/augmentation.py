"""Random changes of training images, drawn by MONAI's `RandAffineGrid` and applied to a batch at once by its
`AffineTransform`; imported inside functions only, as MONAI takes seconds.

`RandAffine`, `RandScaleIntensity` and `RandShiftIntensity` take one image at a time: for one of 128 × 128 they took 3.2
ms on one core, where a batch at once took 0.3 ms an image and a small network's training step 4 ms.

Shape legend: B images in a batch, H × W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import monai  # noqa: F401 - as a whole first: of two threads that begin with two parts of it one fails
import numpy as np
import torch
from monai.networks.layers import AffineTransform
from monai.transforms import RandAffineGrid
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class RandomChanges:
    """How far each image of a batch is changed, each by draws of its own.

    Parameters
    ----------
    shift_fraction
        Of the side, along each axis, uniform in ±.
    rotation_degrees
        Around the centre, uniform in ±.
    zoom_fraction
        Along each axis, uniform in ±: a tilted patient is foreshortened along one.
    contrast_fraction
        Grey values are multiplied by 1 ± it, uniform.
    brightness_sd
        SD of the normal number that is added to all grey values.
    """

    shift_fraction: float
    rotation_degrees: float
    zoom_fraction: float
    contrast_fraction: float
    brightness_sd: float

    def applied(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """Changed images (B, C, H, W), on the device of these; at the border the nearest pixel is repeated.

        One number is drawn from the generator; a NumPy random state that it seeds draws everything else. The draws are
        the same on every machine and device.
        """
        count, _, rows, columns = images.shape
        seed = int(torch.randint(2**32, (1,), generator=generator, device=generator.device))
        draws = RandAffineGrid(
            rotate_range=math.radians(self.rotation_degrees),
            translate_range=(self.shift_fraction * rows, self.shift_fraction * columns),
            scale_range=(self.zoom_fraction, self.zoom_fraction),
        ).set_random_state(seed)
        matrices = torch.from_numpy(_matrices(draws, count, side=(rows, columns))).to(images)  # (B, 3, 3)
        contrast = draws.R.uniform(1 - self.contrast_fraction, 1 + self.contrast_fraction, count)
        brightness = draws.R.normal(0, self.brightness_sd, count)
        gain, offset = (torch.from_numpy(drawn).to(images).view(-1, 1, 1, 1) for drawn in (contrast, brightness))
        moved = AffineTransform(padding_mode="border", align_corners=False)(images, matrices)
        return torch.as_tensor(moved * gain + offset)


def _matrices(draws: RandAffineGrid, count: int, *, side: tuple[int, int]) -> NDArray[np.float64]:
    """Matrices (B, 3, 3) from an output pixel's row and column to the input's: R (diag(scale) x + shift), about the
    centre. `RandAffineGrid` composes the same, and takes 0.25 ms for each.
    """
    params = []
    for _ in range(count):
        draws.randomize()
        params.append((*draws.rotate_params, *draws.translate_params, *draws.scale_params))
    angle, *others = np.array(params).T  # (B,) each
    shift_by, scale_by = np.stack(others[:2], axis=1), np.stack(others[2:], axis=1)  # (B, 2) each
    turn, shift, scale = (np.tile(np.eye(3), (count, 1, 1)) for _ in range(3))
    turn[:, 0, 0], turn[:, 0, 1] = np.cos(angle), -np.sin(angle)
    turn[:, 1, 0], turn[:, 1, 1] = np.sin(angle), np.cos(angle)
    shift[:, :2, 2] = shift_by
    scale[:, [0, 1], [0, 1]] = scale_by
    centre = np.eye(3)
    centre[:2, 2] = (np.array(side) - 1) / 2
    made: NDArray[np.float64] = centre @ turn @ shift @ scale @ np.linalg.inv(centre)
    return made


def shifted_and_mirrored(volumes: torch.Tensor, *, most_voxels: int, generator: torch.Generator) -> torch.Tensor:
    """Volumes (B, C, I, J, K), each shifted by whole voxels along each axis and, half of them, mirrored along I.

    As SFCN is trained. A shift is uniform in ± `most_voxels`; at the border the nearest voxel is repeated. The draws
    are the same on every machine and device.
    """
    count = len(volumes)
    shifts = torch.randint(2 * most_voxels + 1, (count, 3), generator=generator, device=generator.device).tolist()
    mirrored = torch.randint(2, (count,), generator=generator, device=generator.device).tolist()
    padded = torch.nn.functional.pad(volumes, (most_voxels,) * 6, mode="replicate")
    sides = volumes.shape[2:]
    made = []
    for volume, start, is_mirrored in zip(padded, shifts, mirrored, strict=True):
        (i, j, k), (rows, columns, slices) = start, sides
        moved = volume[:, i : i + rows, j : j + columns, k : k + slices]
        made.append(moved.flip(1) if is_mirrored else moved)
    return torch.stack(made)


def with_a_cube_cut_out(
    volumes: torch.Tensor, *, generator: torch.Generator, side_fraction: float = 0.25, probability: float = 0.5
) -> torch.Tensor:
    """Volumes (B, C, I, J, K), of each with this probability a box of `side_fraction` of each side set to 0."""
    drawn = torch.rand((len(volumes), 4), generator=generator, device=generator.device).tolist()
    made = volumes.clone()
    for volume, (chance, *places) in zip(made, drawn, strict=True):
        if chance < probability:
            volume[(slice(None), *_box(volume.shape[1:], places, side_fraction))] = 0.0
    return made


def cropped_in_place(
    volumes: torch.Tensor, *, generator: torch.Generator, side_fraction: float = 121 / 128
) -> torch.Tensor:
    """Volumes (B, C, I, J, K), of each a random box of `side_fraction` of each side kept in the middle, 0 around it.

    As OpenBHB's random crop of 121 × 128 × 121 voxels, padded to 128³ again.
    """
    drawn = torch.rand((len(volumes), 3), generator=generator, device=generator.device).tolist()
    made = torch.zeros_like(volumes)
    for volume, target, places in zip(volumes, made, drawn, strict=True):
        middle = _box(volume.shape[1:], (0.5, 0.5, 0.5), side_fraction)
        target[(slice(None), *middle)] = volume[(slice(None), *_box(volume.shape[1:], places, side_fraction))]
    return made


def _box(sides: Sequence[int], places: Sequence[float], side_fraction: float) -> tuple[slice, ...]:
    """Slices of a box, along each axis at a place from 0 (first voxels) to 1 (last voxels)."""
    bounds = []
    for side, place in zip(sides, places, strict=True):
        length = max(1, round(side * side_fraction))
        start = min(int(place * (side - length + 1)), side - length)
        bounds.append(slice(start, start + length))
    return tuple(bounds)
