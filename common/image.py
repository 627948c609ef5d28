"""One decoded image between the data zone and an estimator, and why an image is refused; without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]


@dataclass(frozen=True)
class Image:
    """One decoded image as the data zone hands it to an estimator.

    Parameters
    ----------
    pixels
        (H, W) float32, modality (and VOI) transform applied, *brighter is denser* whatever the file's photometric
        interpretation was.
    spacing_mm
        Row and column spacing in millimetres.
    modality
        DICOM modality, e.g. `CR`.
    view
        View position, e.g. `PA`; empty if unknown.
    """

    pixels: FloatImage
    spacing_mm: tuple[float, float]
    modality: str
    view: str = ""


class SampleRefused(ValueError):
    """An image cannot become a sample of this estimator. `.code` is a reason code that may be counted and reported."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        super().__init__(f"{code}: {detail}")
