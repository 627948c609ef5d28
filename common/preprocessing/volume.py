"""One volume to a sample of a network's size, by MONAI's transforms; imported inside functions only.

MONAI is imported as a whole: it takes seconds and 200 MiB, with pandas, SciPy and Matplotlib.

Shapes: I × J × K voxels of a volume whose axes are the patient's right, front and up (RAS+), as the site gives it;
S = (S_i, S_j, S_k) those of a sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import monai  # noqa: F401 - as a whole first: of two threads that begin with two parts of it one fails
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import GaussianSmooth, ResizeWithPadOrCrop, Spacing

from fedage.common.preprocessing.image import FloatImage, Image, SampleRefused
from fedage.common.preprocessing.names import Intensity

_SAME_SPACING = 1e-3
"""Relative difference of two spacings that is put down to rounding: no volume is resampled for it."""
Sides = tuple[float, float, float]
"""Lengths along the patient's right, front and up, in mm."""
FWHM_PER_SD = 2.0 * math.sqrt(2.0 * math.log(2.0))
_LEAST_COVERED = 0.5
"""Of the network's field along each axis: a volume that covers less shows part of a head."""


@dataclass(frozen=True, kw_only=True)
class VolumeGrid:
    """What a sample's voxels are.

    Parameters
    ----------
    shape
        S.
    spacing_mm
        Sides of a voxel.
    coarsest_mm
        Largest spacings of a volume that is taken: thick slices do not become thin by resampling.
    intensity
        `mean`: divided by the mean of the whole volume, background in, as SFCN is trained. `foreground`: of mean 0 and
        SD 1 over the voxels above 0, all others 0, for volumes without skull.
    least_mm
        Smallest extents of a volume that is taken; None for half of the grid's.
    """

    shape: tuple[int, int, int]
    spacing_mm: Sides
    coarsest_mm: Sides
    intensity: Intensity
    least_mm: Sides | None = None


def volume_sample(image: Image, grid: VolumeGrid) -> FloatImage:
    """The middle of a volume on a grid, (1, *S): resampled, its grey values normalised, then cropped or padded with 0.

    A volume that has the grid's spacing is not resampled. A finer one is smoothed first, by a Gaussian that
    together with the old voxel has the new one's full width at half maximum, so that voxels are means and no samples.

    Raises
    ------
    SampleRefused
        `not-a-volume`, `not-finite`, `bad-spacing`, `too-coarse`, `too-small` or `blank-image`.
    """
    _check(image, grid)
    spacing = image.spacing_mm
    volume = MetaTensor(
        torch.from_numpy(np.array(image.pixels[None], dtype=np.float32)), affine=torch.diag(_homogeneous(spacing))
    )
    if any(abs(side / wanted - 1) > _SAME_SPACING for side, wanted in zip(spacing, grid.spacing_mm, strict=True)):
        smoothing = [
            math.sqrt(max((wanted / side) ** 2 - 1, 0.0)) / FWHM_PER_SD
            for side, wanted in zip(spacing, grid.spacing_mm, strict=True)
        ]
        if any(smoothing):
            volume = GaussianSmooth(sigma=[max(sd, 1e-6) for sd in smoothing])(volume)
        volume = Spacing(pixdim=grid.spacing_mm, mode="bilinear", padding_mode="border", dtype=np.float64)(volume)
    normalised = _normalised(volume.numpy().astype(np.float64), grid.intensity)
    fitted = ResizeWithPadOrCrop(grid.shape, mode="constant")(torch.from_numpy(normalised))
    return np.ascontiguousarray(torch.as_tensor(fitted).numpy(), dtype=np.float32)


def _check(image: Image, grid: VolumeGrid) -> None:
    voxels = image.pixels
    if voxels.ndim != 3 or image.orientation != "RAS" or min(voxels.shape) < 2:
        raise SampleRefused("not-a-volume", f"the image has {voxels.ndim} axes, a volume of 3 is needed")
    spacing = image.spacing_mm
    if len(spacing) != 3 or not all(math.isfinite(side) and side > 0 for side in spacing):
        raise SampleRefused("bad-spacing", f"spacing {spacing} mm must be three positive numbers")
    for side, coarsest in zip(spacing, grid.coarsest_mm, strict=True):
        if side > coarsest * (1 + _SAME_SPACING):
            raise SampleRefused("too-coarse", f"voxels of {side:g} mm, at most {coarsest:g} mm are taken")
    for axis, (count, voxel_mm, wanted) in enumerate(zip(voxels.shape, spacing, grid.shape, strict=True)):
        field_mm = wanted * grid.spacing_mm[axis]
        least_mm = _LEAST_COVERED * field_mm if grid.least_mm is None else grid.least_mm[axis]
        if count * voxel_mm < least_mm:
            raise SampleRefused(
                "too-small",
                f"a side of {count * voxel_mm:.0f} mm, at least {least_mm:.0f} mm are needed",
            )
    if not np.isfinite(voxels).all():
        raise SampleRefused("not-finite", "some grey values are not finite")
    lower, upper = float(voxels.min()), float(voxels.max())
    if upper - lower <= 1e-6 * max(1.0, abs(lower), abs(upper)):
        raise SampleRefused("blank-image", f"its grey values all lie at {lower:g}; a head has contrast")


def _normalised(values: np.ndarray, intensity: Intensity) -> np.ndarray:
    """Float64, as sums in 32 bits depend on the number of threads."""
    if intensity == "mean":
        mean = float(values.mean())
        if mean <= 1e-3 * float(np.abs(values).max()):
            raise SampleRefused("blank-image", "the mean of its grey values is not above 0, which they are divided by")
        return values / mean
    is_head = values > 0
    inside = values[is_head]
    if inside.size < 2 or float(inside.std()) <= 1e-6 * float(inside.mean()):
        raise SampleRefused("blank-image", "its grey values above 0 are all equal")
    return np.where(is_head, (values - inside.mean()) / inside.std(), 0.0)


def _homogeneous(spacing_mm: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor([*spacing_mm, 1.0], dtype=torch.float64)
