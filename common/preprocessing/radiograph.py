"""One radiograph to a square sample, by MONAI's transforms where they mean the same; imported inside functions only.

MONAI is imported as a whole: it takes seconds and 200 MiB, with pandas, SciPy and Matplotlib.

Kept by hand, as MONAI (1.6) means something else or measures worse:

* The resize. `Resize` smooths by a Gaussian and samples then; here each output pixel is the mean, weighted by a
  triangle, of the pixels that it covers.
* The mean and the variance. `NormalizeIntensity` sums in 32 bits in as many parts as torch has threads, so that another
  number of threads gives another sample (seen from 512 × 512 on).

Shapes: H × W pixels, S the side of a sample.
"""

from __future__ import annotations

import math

import monai  # noqa: F401 - as a whole first: of two threads that begin with two parts of it one fails
import numpy as np
import torch
from monai.transforms import CenterSpatialCrop, ClipIntensityPercentiles
from torch.nn import functional

from fedage.common.preprocessing.image import FloatImage, Image, SampleRefused

_CLIP_PERCENTILES = (0.5, 99.5)


def square_sample(image: Image, *, size: int) -> FloatImage:
    """Centre square of the image, (1, S, S) by area averaging, clipped to percentiles, of mean 0 and variance 1.

    The square is one in millimetres: unequal row and column spacing does not stretch the patient. The same image gives
    the same bits, whatever the number of threads.

    Parameters
    ----------
    image
        Of (H, W).
    size
        S; the centre square needs half as many pixels a side.

    Raises
    ------
    SampleRefused
        `not-two-dimensional`, `not-finite`, `bad-spacing`, `too-small` or `blank-image`.
    """
    rows, columns = _centre_square(image, side_min=size // 2)
    square = CenterSpatialCrop((rows, columns)).compute_slices(image.pixels.shape)
    small = functional.interpolate(
        torch.from_numpy(np.array(image.pixels[square], dtype=np.float32))[None, None],
        size=(size, size),
        mode="bilinear",
        align_corners=False,
        antialias=True,
    )[0]  # (1, S, S)
    clipped = ClipIntensityPercentiles(*_CLIP_PERCENTILES)(small).numpy().astype(np.float64)
    lower, upper = clipped.min(), clipped.max()
    if upper - lower <= 1e-6 * max(1.0, abs(lower), abs(upper)):
        raise SampleRefused("blank-image", f"its grey values all lie at {lower:g}; a radiograph has contrast")
    return np.asarray((clipped - clipped.mean()) / clipped.std(), dtype=np.float32)


def _centre_square(image: Image, *, side_min: int) -> tuple[int, int]:
    """Rows and columns of the largest centred rectangle of pixels that is a square in millimetres, or a refusal."""
    pixels = image.pixels
    if pixels.ndim != 2:
        raise SampleRefused("not-two-dimensional", f"the image has {pixels.ndim} dimensions, 2 are needed")
    if not all(math.isfinite(spacing) and spacing > 0 for spacing in image.spacing_mm):
        raise SampleRefused("bad-spacing", f"spacing {image.spacing_mm} mm must be two positive numbers")
    row_mm, column_mm = image.spacing_mm
    rows, columns = pixels.shape
    side_mm = min(rows * row_mm, columns * column_mm)
    rows_kept, columns_kept = min(rows, round(side_mm / row_mm)), min(columns, round(side_mm / column_mm))
    if min(rows_kept, columns_kept) < side_min:
        raise SampleRefused(
            "too-small",
            f"the centre square has {rows_kept} × {columns_kept} pixels, at least {side_min} a side are needed",
        )
    if not np.isfinite(pixels).all():
        raise SampleRefused("not-finite", "some grey values are not finite")
    return rows_kept, columns_kept
