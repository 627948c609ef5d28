"""One mammogram to a sample, by MONAI's transforms where they mean the same; imported inside functions only.

What is brighter is denser when an image comes here, whatever its photometric interpretation. Then, in this order: the
breast is the largest connected part above Otsu's threshold (markers and edges are others); the image is mirrored so
that the chest wall is on the left; it is cropped to the breast, filled up with air to the sample's shape in mm, so that
no breast is stretched, and resized by area averaging; grey values inside the breast are cut to percentiles and
scaled, the lowest to −1 and the highest to 1. Air is −1.

Kept by hand: the largest part, as MONAI (1.6) needs scikit-image for it, and the resize, see `radiograph`.

Shapes: H × W pixels of an image; a sample is (1, h, w).
"""

from __future__ import annotations

import math

import monai  # noqa: F401 - as a whole first: of two threads that begin with two parts of it one fails
import numpy as np
import torch
from monai.transforms import BorderPad, ClipIntensityPercentiles, Flip, ScaleIntensity, SpatialCrop
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from fedage.common.preprocessing.image import FloatImage, Image, SampleRefused

_CLIP_PERCENTILES = (0.5, 99.5)
_TISSUE_FROM, _SPREADS = 0.1, 6.0
"""Tissue begins so far on the way from air to the brightest, and so many median deviations above air."""
_SEARCHED_SIDE = 256
"""Pixels along the longer side of the coarse image in which the breast is looked for."""
_SMALLEST_PART, _LARGEST_PART = 0.03, 0.98
"""Of the image, that a breast covers."""


def breast_sample(image: Image, *, shape: tuple[int, int]) -> FloatImage:
    """The breast alone, chest wall on the left, (1, h, w) in −1 to 1; see the module's docstring.

    Parameters
    ----------
    image
        Of (H, W).
    shape
        (h, w); the breast needs half as many pixels along both.

    Raises
    ------
    SampleRefused
        `not-two-dimensional`, `not-finite`, `bad-spacing`, `blank-image`, `no-breast` or `too-small`.
    """
    _check(image)
    pixels = np.ascontiguousarray(image.pixels, dtype=np.float32)
    breast = _breast(pixels)
    if breast[:, : breast.shape[1] // 2].sum() < breast[:, breast.shape[1] // 2 :].sum():
        mirror = Flip(spatial_axis=1)
        pixels, breast = (mirror(torch.from_numpy(one)[None]).numpy()[0] for one in (pixels, breast))
    rows, columns = (np.flatnonzero(breast.any(axis=axis)) for axis in (1, 0))
    if rows.size < shape[0] // 2 or columns.size < shape[1] // 2:
        raise SampleRefused(
            "too-small",
            f"the breast has {rows.size} × {columns.size} pixels, at least {shape[0] // 2} × {shape[1] // 2} are "
            "needed",
        )
    crop = SpatialCrop(roi_start=(rows[0], columns[0]), roi_end=(rows[-1] + 1, columns[-1] + 1))
    inside, mask = (crop(torch.from_numpy(one)[None]).numpy()[0] for one in (pixels, breast))
    scaled = _scaled(inside, mask)
    filled = _filled(scaled, image.spacing_mm, shape)
    small = functional.interpolate(
        torch.from_numpy(filled)[None, None], size=shape, mode="bilinear", align_corners=False, antialias=True
    )[0]
    return np.ascontiguousarray(small.numpy(), dtype=np.float32)


def _check(image: Image) -> None:
    pixels = image.pixels
    if pixels.ndim != 2:
        raise SampleRefused("not-two-dimensional", f"the image has {pixels.ndim} dimensions, 2 are needed")
    if not all(math.isfinite(spacing) and spacing > 0 for spacing in image.spacing_mm):
        raise SampleRefused("bad-spacing", f"spacing {image.spacing_mm} mm must be two positive numbers")
    if not np.isfinite(pixels).all():
        raise SampleRefused("not-finite", "some grey values are not finite")
    lower, upper = float(pixels.min()), float(pixels.max())
    if upper - lower <= 1e-6 * max(1.0, abs(lower), abs(upper)):
        raise SampleRefused("blank-image", f"its grey values all lie at {lower:g}; a mammogram has contrast")


def _breast(pixels: FloatImage) -> NDArray[np.bool_]:
    """The largest connected part above the threshold, without holes, (H, W)."""
    step = max(1, math.ceil(max(pixels.shape) / _SEARCHED_SIDE))
    coarse = ndimage.uniform_filter(pixels, size=step, mode="nearest")[step // 2 :: step, step // 2 :: step]
    labels, count = ndimage.label(coarse > _above_air(coarse))
    if not count:
        raise SampleRefused("no-breast", "no part of the image stands out from its background")
    sizes = np.bincount(labels.ravel())[1:]
    part = ndimage.binary_fill_holes(labels == 1 + int(sizes.argmax()))
    if not _SMALLEST_PART <= part.mean() <= _LARGEST_PART:
        raise SampleRefused(
            "no-breast",
            f"the largest part that stands out covers {part.mean():.0%} of the image, a breast covers "
            f"{_SMALLEST_PART:.0%} to {_LARGEST_PART:.0%}",
        )
    fine = np.repeat(np.repeat(part, step, axis=0), step, axis=1)
    missing = [(0, max(0, whole - have)) for whole, have in zip(pixels.shape, fine.shape, strict=True)]
    return np.ascontiguousarray(np.pad(fine, missing, mode="edge")[: pixels.shape[0], : pixels.shape[1]])


def _above_air(coarse: FloatImage) -> float:
    """A grey value above the air's: that of the darker side's edge, and a part of the way to the brightest tissue.

    Thresholds that part an image's histogram in two, such as Otsu's, take fat for air where a breast has dense tissue.
    """
    edge = min((coarse[:, :2], coarse[:, -2:]), key=lambda side: float(np.median(side)))
    air = float(np.median(edge))
    spread = float(np.median(np.abs(edge - air)))
    return air + max(_SPREADS * spread, _TISSUE_FROM * (float(np.percentile(coarse, 99)) - air))


def _scaled(inside: FloatImage, mask: NDArray[np.bool_]) -> FloatImage:
    """Grey values of the breast cut to percentiles and scaled to −1 … 1, everything else −1."""
    clipped = ClipIntensityPercentiles(*_CLIP_PERCENTILES)(torch.from_numpy(inside[mask])[None])
    if float(clipped.max() - clipped.min()) <= 1e-6 * max(1.0, float(clipped.abs().max())):
        raise SampleRefused("blank-image", f"the breast's grey values all lie at {float(clipped.min()):g}")
    scaled = np.full(inside.shape, -1.0, dtype=np.float32)
    scaled[mask] = ScaleIntensity(minv=-1.0, maxv=1.0)(clipped).numpy()[0]
    return scaled


def _filled(inside: FloatImage, spacing_mm: tuple[float, ...], shape: tuple[int, int]) -> FloatImage:
    """Air added on the right, or above and below, until the sides in mm are as those of the sample."""
    (row_mm, column_mm), (rows, columns) = spacing_mm, inside.shape
    wanted = shape[0] / shape[1]
    tall = rows * row_mm / (columns * column_mm)
    right = max(0, round(rows * row_mm / wanted / column_mm) - columns) if tall > wanted else 0
    beside = max(0, round(columns * column_mm * wanted / row_mm) - rows) if tall < wanted else 0
    above = beside // 2
    pad = BorderPad(spatial_border=(above, beside - above, 0, right), mode="constant", value=-1.0)
    return np.ascontiguousarray(pad(torch.from_numpy(inside)[None]).numpy()[0], dtype=np.float32)
